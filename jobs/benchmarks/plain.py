"""Meta-learning as one would write it by hand in PyTorch, task by task: what metaray's own loop is compared with.

The network is metaray's, called by `functional_call`; batch norm is transductive, by its fused kernel.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metaray.algorithms import ANIL, MAML, R2D2, Algorithm, ProtoNet
from metaray.algorithms.r2d2 import LOG_REGULARIZER, SCALE
from metaray.episodes.prefetch import Arrival
from metaray.episodes.tensors import TensorEpisode, chunks
from metaray.experiment.experiment import Experiment
from metaray.training.outer_loop import initial_state

Forward = Callable[[dict[str, Tensor], Tensor], Tensor]
QueryLoss = Callable[[dict[str, Tensor], TensorEpisode], Tensor]


def query_loss(algorithm: Algorithm, forward: Forward) -> QueryLoss:
    """The loss of one task as a function of the meta-parameters.

    Args:
        algorithm: MAML, ANIL, ProtoNet or R2D2, transductive.
        forward: the network's output under given parameters, in float32.
    """
    assert algorithm.batch_norm == "transductive"
    if isinstance(algorithm, MAML | ANIL):
        return _fine_tuned(algorithm, forward)
    assert isinstance(algorithm, ProtoNet | R2D2)
    return _by_means(forward) if isinstance(algorithm, ProtoNet) else _by_ridge(forward)


def _fine_tuned(algorithm: MAML | ANIL, forward: Forward) -> QueryLoss:
    """MAML, or ANIL: some gradient steps on the support set, through which the query's loss is differentiated."""
    rate, head_only = algorithm.inner_lr, isinstance(algorithm, ANIL)
    twice = isinstance(algorithm, ANIL) or algorithm.second_order
    assert isinstance(rate, float)

    def loss(meta: dict[str, Tensor], episode: TensorEpisode) -> Tensor:
        fast = dict(meta)
        moving = [name for name in meta if name.startswith("head.") or not head_only]
        for _ in range(algorithm.inner_steps):
            inner = nn.functional.cross_entropy(forward(fast, episode.support.x), episode.support.y)
            gradients = torch.autograd.grad(inner, [fast[name] for name in moving], create_graph=twice)
            fast |= {name: fast[name] - rate * g for name, g in zip(moving, gradients, strict=True)}
        return nn.functional.cross_entropy(forward(fast, episode.query.x), episode.query.y)

    return loss


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
    state = initial_state(experiment, device)
    network, meta = state.network, state.meta
    optimizer = torch.optim.Adam(list(meta.values()), experiment.optimizer.outer_lr)
    low_precision = experiment.precision.dtype == "bfloat16"

    def forward(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        if experiment.precision.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=low_precision):
            found: Tensor = functional_call(network, parameters, (x,)).float()
            return found

    loss_of = query_loss(experiment.algorithm, forward)
    for arrival in given:
        optimizer.zero_grad()
        losses = []
        for (episode,) in chunks(arrival.batch, 1, device, experiment.source, "meta-train"):
            loss = loss_of(meta, episode) / len(arrival.batch)
            loss.backward()
            losses.append(loss.detach())
        optimizer.param_groups[0]["lr"] = experiment.optimizer.lr_at(arrival.step, experiment.num_steps)
        optimizer.step()
        yield float(torch.stack(losses).sum())
