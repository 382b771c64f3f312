"""What every algorithm must do; an entry of ALGORITHMS is tested here without another line.

Numerics are checked in float64 on tiny networks. "Trained" algorithms are those with meta-parameters.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, jaxtyped
from torch import Tensor, nn

from metaray.algorithms import ALGORITHMS, Algorithm
from metaray.algorithms.algorithm import start
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.problem import Problem
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.imports import dump_kind, parse_kind
from metaray.models import MLP, Conv4, Model
from metaray.models.batch_norm import EpisodicBatchNorm

MakeEpisode = Callable[..., TensorEpisode]

FEATURE = (1, 2, 2)
PROTOCOLS = ("transductive", "inductive")

every_algorithm = pytest.mark.parametrize("kind", ALGORITHMS)
every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)


def has_parameters(kind: str) -> bool:
    return bool(start(ALGORITHMS[kind](), MLP(hidden=(2,)), Problem((1,), 2, None, 2), seed=0)[1])


every_trained = pytest.mark.parametrize("kind", [kind for kind in ALGORITHMS if has_parameters(kind)])


class Bench:
    """An algorithm with a network and meta-parameters for it."""

    def __init__(
        self,
        kind: str,
        protocol: str = "transductive",
        *,
        ways: int = 3,
        model: Model | None = None,
        feature: tuple[int, ...] = FEATURE,
        dtype: torch.dtype = torch.float64,
        training: bool = True,
    ) -> None:
        self.algorithm: Algorithm = ALGORITHMS[kind].parse({"batch_norm": protocol}, where=kind)
        model = model or MLP(hidden=(6, 5))
        network, meta = start(self.algorithm, model, Problem(feature, ways, None, ways), seed=1)
        network.to(dtype)
        self.meta = {name: t.to(dtype).requires_grad_() for name, t in meta.items()}
        self.context = Context(network=network, ways=ways, training=training)

    def logits(self, support: Examples, x: Tensor) -> Tensor:
        adapted = self.algorithm.adapt(self.meta, support, self.context)
        return self.algorithm.predict(self.meta, adapted, x, self.context)


def close(a: Tensor, b: Tensor, *, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@every_algorithm
def test_kind_is_its_key_and_it_round_trips(kind: str) -> None:
    algorithm = ALGORITHMS[kind]()
    assert ALGORITHMS[kind].kind == kind
    assert parse_kind(dump_kind(algorithm, ALGORITHMS), ALGORITHMS, Algorithm, what="algorithm") == algorithm
    with pytest.raises(ValueError, match="frozen"):
        algorithm.batch_norm = "inductive"  # type: ignore[misc]


@every_algorithm
@every_protocol
@pytest.mark.parametrize(("ways", "shots", "queries"), [(2, 1, 1), (3, 2, 1), (5, 3, 4)])
def test_shapes(kind: str, protocol: str, ways: int, shots: int, queries: int, make_episode: MakeEpisode) -> None:
    @jaxtyped(typechecker=beartype)
    def logits_of(bench: Bench, episode: TensorEpisode) -> Float[Tensor, f"{ways * queries} {ways}"]:
        return bench.logits(episode.support, episode.query.x)

    bench = Bench(kind, protocol, ways=ways)
    episode = make_episode(ways=ways, shots=shots, queries=queries)
    assert logits_of(bench, episode).isfinite().all()
    outcome = bench.algorithm.loss(bench.meta, episode, bench.context)
    assert outcome.loss.shape == outcome.score.shape == ()
    assert 0 <= float(outcome.score) <= 1 and not outcome.score.requires_grad


@every_algorithm
@pytest.mark.parametrize("training", [True, False])
def test_inputs_and_meta_are_left_alone(kind: str, training: bool, make_episode: MakeEpisode) -> None:
    for protocol in PROTOCOLS:
        bench, episode = Bench(kind, protocol, training=training), make_episode()
        frozen = [bench.meta.copy(), *episode.support, *episode.query]
        before = [t.detach().clone() for t in [*bench.meta.values(), *episode.support, *episode.query]]
        inside = [t.detach().clone() for t in bench.context.network.state_dict().values()]
        bench.algorithm.loss(bench.meta, episode, bench.context)
        after = [*bench.meta.values(), *episode.support, *episode.query]
        assert frozen[0] == bench.meta
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert all(t.grad is None for t in bench.meta.values())
        own = bench.context.network.state_dict().values()
        assert all(torch.equal(a, b) for a, b in zip(inside, own, strict=True))
        for layer in bench.context.network.modules():
            if isinstance(layer, EpisodicBatchNorm):
                assert layer.statistics is None and layer.recorded is None and not layer.record


@every_algorithm
def test_a_call_repeats_its_bits(kind: str, make_episode: MakeEpisode) -> None:
    bench, episode = Bench(kind, dtype=torch.float32), make_episode(dtype=torch.float32)
    once, again = (bench.logits(episode.support, episode.query.x) for _ in range(2))
    assert torch.equal(once, again)


@every_algorithm
@every_protocol
def test_order_of_the_support_does_not_matter(kind: str, protocol: str, make_episode: MakeEpisode) -> None:
    bench, episode = Bench(kind, protocol), make_episode(shots=3)
    shuffle = torch.randperm(len(episode.support.y), generator=torch.Generator().manual_seed(3))
    shuffled = Examples(episode.support.x[shuffle], episode.support.y[shuffle])
    close(bench.logits(episode.support, episode.query.x), bench.logits(shuffled, episode.query.x))


@every_algorithm
def test_inductive_predictions_ignore_the_other_queries(kind: str, make_episode: MakeEpisode) -> None:
    bench, episode = Bench(kind, "inductive"), make_episode(queries=3)
    together = bench.logits(episode.support, episode.query.x)
    for i in range(len(together)):
        close(bench.logits(episode.support, episode.query.x[i : i + 1]), together[i : i + 1])


@every_trained
def test_transductive_predictions_heed_the_other_queries(kind: str, make_episode: MakeEpisode) -> None:
    bench, episode = Bench(kind, "transductive"), make_episode(queries=3)
    together = bench.logits(episode.support, episode.query.x)
    alone = bench.logits(episode.support, episode.query.x[:3])
    assert (together[:3] - alone).abs().max() > 1e-3


@every_trained
@every_protocol
def test_without_batch_norm_the_protocols_agree(kind: str, protocol: str, make_episode: MakeEpisode) -> None:
    model, episode = MLP(hidden=(6,), batch_norm=False), make_episode()
    logits = [Bench(kind, p, model=model).logits(episode.support, episode.query.x) for p in PROTOCOLS]
    close(*logits)


def smoothen(network: nn.Module) -> None:
    """Tanh for ReLU, in place: a difference quotient across a kink is no derivative."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Tanh())


@every_trained
@every_protocol
def test_meta_gradient_against_finite_differences(kind: str, protocol: str, make_episode: MakeEpisode) -> None:
    if ALGORITHMS[kind].meta_gradient is not Algorithm.meta_gradient:
        pytest.skip(f"the meta-gradient of {kind} is not that of its loss")
    bench, episode = Bench(kind, protocol), make_episode()
    smoothen(bench.context.network)

    def loss(meta: Tensors) -> float:
        return float(bench.algorithm.loss(meta, episode, bench.context).loss.detach())

    gradient = bench.algorithm.meta_gradient(bench.meta, episode, bench.context).gradient
    assert list(gradient) == list(bench.meta)
    step = 1e-5
    for name, tensor in bench.meta.items():
        numeric = torch.zeros_like(tensor)
        for i in range(tensor.numel()):
            nudge = torch.zeros(tensor.numel(), dtype=tensor.dtype)
            nudge[i] = step
            ahead, behind = (
                loss({**bench.meta, name: tensor.detach() + sign * nudge.view_as(tensor)}) for sign in (1, -1)
            )
            numeric.view(-1)[i] = (ahead - behind) / (2 * step)
        assert torch.allclose(gradient[name], numeric, rtol=1e-6, atol=1e-8), name


def silent(network: nn.Module) -> set[str]:
    """Biases of layers right before a batch norm: it subtracts them again, so their gradient is zero."""
    modules = list(network.named_modules())
    leaves = [(name, module) for name, module in modules if not list(module.children())]
    pairs = itertools.pairwise(leaves)
    return {f"{name}.bias" for (name, _), (_, after) in pairs if isinstance(after, EpisodicBatchNorm)}


@every_trained
@every_protocol
@pytest.mark.parametrize(
    "model", [MLP(hidden=(8, 8)), MLP(hidden=(8,), batch_norm=False), Conv4(channels=3, downsample="stride")], ids=str
)
def test_gradients_reach_every_meta_parameter(
    kind: str, protocol: str, model: Model, make_episode: MakeEpisode
) -> None:
    feature = (1, 16, 16)
    bench = Bench(kind, protocol, model=model, feature=feature)
    episode = make_episode(feature=feature, shots=3, queries=3)
    gradient = bench.algorithm.meta_gradient(bench.meta, episode, bench.context).gradient
    quiet = silent(bench.context.network)
    for name, tensor in gradient.items():
        largest = float(tensor.abs().max())
        assert (largest < 1e-12) if name in quiet else (largest > 1e-6), (name, largest)


@every_trained
@every_protocol
def test_a_chunk_equals_its_episodes_one_by_one(kind: str, protocol: str, make_episode: MakeEpisode) -> None:
    bench, chunk = Bench(kind, protocol), make_episode(size=3)
    batched = bench.algorithm.meta_gradient(bench.meta, chunk, replace(bench.context, batched=True))
    singles = [bench.algorithm.meta_gradient(bench.meta, episode_of(chunk, i), bench.context) for i in range(3)]
    close(batched.outcome.loss, torch.cat([s.outcome.loss for s in singles]))
    close(batched.outcome.score, torch.cat([s.outcome.score for s in singles]))
    for name in bench.meta:
        close(batched.gradient[name], torch.stack([s.gradient[name] for s in singles]).sum(0))


def episode_of(chunk: TensorEpisode, i: int) -> TensorEpisode:
    support, query = (Examples(side.x[i], side.y[i]) for side in (chunk.support, chunk.query))
    return TensorEpisode(support, query, chunk.seed[i], chunk.classes[i])


@every_algorithm
@every_protocol
def test_a_chunk_is_judged_like_its_episodes(kind: str, protocol: str, make_episode: MakeEpisode) -> None:
    bench, chunk = Bench(kind, protocol, training=False), make_episode(size=3, queries=4)
    with torch.no_grad():
        batched = bench.algorithm.outcomes(bench.meta, chunk, replace(bench.context, batched=True))
        singles = [bench.algorithm.outcomes(bench.meta, episode_of(chunk, i), bench.context) for i in range(3)]
    close(batched.loss, torch.cat([s.loss for s in singles]))
    close(batched.score, torch.cat([s.score for s in singles]))


@every_algorithm
@every_protocol
def test_judging_builds_no_graph(kind: str, protocol: str, make_episode: MakeEpisode) -> None:
    bench, episode = Bench(kind, protocol, training=False), make_episode()
    meta = {name: t.detach() for name, t in bench.meta.items()}
    with torch.no_grad():
        adapted = bench.algorithm.adapt(meta, episode.support, bench.context)
        logits = bench.algorithm.predict(meta, adapted, episode.query.x, bench.context)
    assert not any(t.requires_grad for t in [*adapted.values(), logits])


@every_algorithm
@every_protocol
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize("downsample", ["max_pool", "stride"])
def test_half_precision_is_finite_and_near(
    kind: str, protocol: str, channels_last: bool, size: int | None, downsample: str, make_episode: MakeEpisode
) -> None:
    feature: tuple[int, ...] = (1, 32, 32)
    bench = Bench(kind, protocol, model=Conv4(channels=4, downsample=downsample), feature=feature, dtype=torch.float32)
    chunk = make_episode(feature=feature, dtype=torch.float32, size=size)
    exact = replace(bench.context, batched=size is not None)
    half: Any = replace(exact, precision="bfloat16", channels_last=channels_last)
    losses = [bench.algorithm.outcomes(bench.meta, chunk, context).loss for context in (exact, half)]
    assert losses[1].dtype == torch.float32
    torch.testing.assert_close(losses[1], losses[0], rtol=0.3, atol=0.3)
    if bench.meta:
        gradient = bench.algorithm.meta_gradient(bench.meta, chunk, half).gradient
        assert all(t.isfinite().all() and t.dtype == torch.float32 for t in gradient.values())


@every_algorithm
def test_unequal_support_classes(kind: str, make_episode: MakeEpisode) -> None:
    bench, episode = Bench(kind), make_episode(shots=3)
    uneven = Examples(episode.support.x[:-2], episode.support.y[:-2])
    assert bench.logits(uneven, episode.query.x).isfinite().all()
