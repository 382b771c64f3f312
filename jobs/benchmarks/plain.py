"""Meta-learning as one would write it by hand in PyTorch, task by task: what metaray's own loop is compared with.

The network is metaray's or another one with its names, called by `functional_call`; batch norm is transductive, by its
fused kernel. ANIL embeds the support once.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from jobs.benchmarks.peers.learner import Outcome
from metaray.algorithms import ANIL, FOMAML, MAML, R2D2, Algorithm, ProtoNet
from metaray.algorithms.r2d2 import LOG_REGULARIZER, SCALE
from metaray.episodes.prefetch import Arrival
from metaray.episodes.tensors import TensorEpisode, chunks
from metaray.experiment.experiment import Experiment
from metaray.optimizers.stepping import global_norm
from metaray.training.outer_loop import initial_state

Forward = Callable[[dict[str, Tensor], Tensor], Tensor]
QueryLoss = Callable[[dict[str, Tensor], TensorEpisode], Tensor]


class Parts(NamedTuple):
    """A network and its two parts, each a function of all parameters and of what it sees; outputs are float32."""

    whole: Forward
    body: Forward
    head: Forward


def query_loss(algorithm: Algorithm, parts: Parts) -> QueryLoss:
    """The loss of one task as a function of the meta-parameters.

    Args:
        algorithm: MAML, FOMAML, ANIL, ProtoNet or R2D2, transductive.
        parts: of the network.
    """
    assert algorithm.batch_norm == "transductive"
    if isinstance(algorithm, MAML | FOMAML):
        return _fine_tuned(algorithm, parts.whole)
    if isinstance(algorithm, ANIL):
        return _head_fine_tuned(algorithm, parts)
    assert isinstance(algorithm, ProtoNet | R2D2)
    return _by_means(parts.whole) if isinstance(algorithm, ProtoNet) else _by_ridge(parts.whole)


def _fine_tuned(algorithm: MAML | FOMAML, forward: Forward) -> QueryLoss:
    """Some gradient steps on the support set, through which the query's loss is differentiated."""
    twice = isinstance(algorithm, MAML) and algorithm.second_order

    def loss(meta: dict[str, Tensor], episode: TensorEpisode) -> Tensor:
        x, y = episode.support
        fast = _descended(algorithm, meta, list(meta), lambda at: forward(at, x), y, twice=twice)
        return nn.functional.cross_entropy(forward(fast, episode.query.x), episode.query.y)

    return loss


def _head_fine_tuned(algorithm: ANIL, parts: Parts) -> QueryLoss:
    """The same of the head alone, on features that are computed once."""

    def loss(meta: dict[str, Tensor], episode: TensorEpisode) -> Tensor:
        features, y = parts.body(meta, episode.support.x), episode.support.y
        moving = [name for name in meta if name.startswith("head.")]
        fast = _descended(algorithm, meta, moving, lambda at: parts.head(at, features), y, twice=True)
        return nn.functional.cross_entropy(parts.head(fast, parts.body(meta, episode.query.x)), episode.query.y)

    return loss


def _descended(
    algorithm: MAML | FOMAML | ANIL,
    meta: dict[str, Tensor],
    moving: list[str],
    logits: Callable[[dict[str, Tensor]], Tensor],
    y: Tensor,
    *,
    twice: bool,
) -> dict[str, Tensor]:
    rate, fast = algorithm.inner_lr, dict(meta)
    assert isinstance(rate, float)
    for _ in range(algorithm.inner_steps):
        loss = nn.functional.cross_entropy(logits(fast), y)
        gradients = torch.autograd.grad(loss, [fast[name] for name in moving], create_graph=twice)
        fast |= {name: fast[name] - rate * g for name, g in zip(moving, gradients, strict=True)}
    return fast


def _by_means(forward: Forward) -> QueryLoss:
    """ProtoNet: minus the squared distances to the means of the classes."""

    def loss(meta: dict[str, Tensor], episode: TensorEpisode) -> Tensor:
        embedded = forward(meta, torch.cat([episode.support.x, episode.query.x]))
        shots, queries = embedded.split([len(episode.support.y), len(episode.query.y)])
        ways = len(episode.classes)
        means = torch.stack([shots[episode.support.y == label].mean(0) for label in range(ways)])
        return nn.functional.cross_entropy(-(queries[:, None] - means).square().sum(-1), episode.query.y)

    return loss


def _by_ridge(forward: Forward) -> QueryLoss:
    """R2D2: ridge regression on the embedded support set, in closed form."""

    def loss(meta: dict[str, Tensor], episode: TensorEpisode) -> Tensor:
        theta = {name: tensor for name, tensor in meta.items() if name not in (LOG_REGULARIZER, SCALE)}
        embedded = forward(theta, torch.cat([episode.support.x, episode.query.x]))
        embedded = torch.cat([embedded, torch.ones_like(embedded[:, :1])], dim=1)
        shots, queries = embedded.split([len(episode.support.y), len(episode.query.y)])
        targets = nn.functional.one_hot(episode.support.y, len(episode.classes)).double()
        wide = shots.double()
        kernel = wide @ wide.T + meta[LOG_REGULARIZER].exp() * torch.eye(len(wide), device=wide.device).double()
        weights = (wide.T @ torch.linalg.solve(kernel, targets)).to(shots.dtype)
        return nn.functional.cross_entropy(meta[SCALE] * (queries @ weights), episode.query.y)

    return loss


def plain_steps(experiment: Experiment, given: Iterable[Arrival], device: torch.device) -> Iterator[float]:
    """Mean losses of the outer steps, one episode after the other."""
    return (outcome.loss for outcome in plain_outcomes(experiment, given, device))


def plain_outcomes(
    experiment: Experiment, given: Iterable[Arrival], device: torch.device, network: nn.Module | None = None
) -> Iterator[Outcome]:
    """What each outer step finds before it moves the parameters.

    Args:
        experiment: what is trained; the optimiser is Adam.
        given: the meta-batches.
        device: where to compute.
        network: in the place of metaray's, with its names: `body` and `head`.
    """
    state = initial_state(experiment, device)
    meta = state.meta
    optimizer = torch.optim.Adam(list(meta.values()), experiment.optimizer.outer_lr)
    loss_of = query_loss(experiment.algorithm, parts_of(network or state.network, experiment, device))
    for arrival in given:
        optimizer.zero_grad()
        losses = []
        for (episode,) in chunks(arrival.batch, 1, device, experiment.source, "meta-train"):
            loss = loss_of(meta, episode) / len(arrival.batch)
            loss.backward()
            losses.append(loss.detach())
        gradient_norm = global_norm({name: t.grad for name, t in meta.items() if t.grad is not None})
        optimizer.param_groups[0]["lr"] = experiment.optimizer.lr_at(arrival.step, experiment.num_steps)
        optimizer.step()
        yield Outcome(float(torch.stack(losses).sum()), float(gradient_norm))


def parts_of(network: nn.Module, experiment: Experiment, device: torch.device) -> Parts:
    """A network, its body and its head, in the arithmetic of the experiment."""
    low_precision = experiment.precision.dtype == "bfloat16"

    def call(module: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        if experiment.precision.channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=low_precision):
            found: Tensor = functional_call(module, parameters, (x,)).float()
            return found

    def part(name: str) -> Forward:
        module = getattr(network, name)
        start = f"{name}."

        def forward(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
            own = {key.removeprefix(start): t for key, t in parameters.items() if key.startswith(start)}
            return call(module, own, x)

        return forward

    return Parts(partial(call, network), part("body"), part("head"))
