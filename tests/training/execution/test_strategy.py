"""What a chunk's meta-gradient is computed by, and what auto means."""

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from metaray.algorithms.algorithm import Outcome
from metaray.algorithms.context import Context, Tensors
from metaray.episodes.tensors import TensorEpisode
from metaray.training.execution.replay import Replay, Rerun
from metaray.training.execution.strategy import Strategy, episodes_of
from metaray.training.execution.table import Kind, automatic, convolutions_of
from metaray.training.execution.tracing import Flat
from tests.conformance.bench import Bench, Trial, close, episode_of

CPU = torch.device("cpu")


@pytest.fixture
def bench() -> Bench:
    return Bench(Trial("maml", "classification", "inductive"), settings={"inner_steps": 2})


def test_each_episode_of_a_chunk_by_itself(bench: Bench) -> None:
    """As single ones, summed in their order."""
    chunk = bench.episode(size=3)
    found = Strategy("each", CPU).meta_gradient(bench.algorithm, bench.meta, chunk, bench.context.of(chunk))
    alone = [bench.algorithm.meta_gradient(bench.meta, episode_of(chunk, i), bench.context) for i in range(3)]
    for name, tensor in found.gradient.items():
        assert torch.equal(tensor, alone[0].gradient[name] + alone[1].gradient[name] + alone[2].gradient[name])
    assert torch.equal(found.outcome.loss, torch.cat([one.outcome.loss for one in alone]))
    assert all(one.support.x.storage_offset() == 0 for one in episodes_of(chunk))


def test_batched_is_what_the_algorithm_does(bench: Bench) -> None:
    chunk = bench.episode(size=3)
    context = bench.context.of(chunk)
    found = Strategy("batched", CPU).meta_gradient(bench.algorithm, bench.meta, chunk, context)
    expected = bench.algorithm.meta_gradient(bench.meta, chunk, context)
    assert all(torch.equal(found.gradient[name], tensor) for name, tensor in expected.gradient.items())


class Capture:
    """Replays a function into the same tensors at each call, as a CUDA graph does."""

    def __init__(self) -> None:
        self.captured = 0

    def __call__(self, function: Flat, inputs: Sequence[Tensor], fixed: int) -> Flat:
        self.captured += 1
        static = [tensor.detach().clone() for tensor in inputs]
        results = [tensor.clone() for tensor in function(*static)]

        def replay(*given: Tensor) -> Sequence[Tensor]:
            for mine, other in zip(static, given, strict=True):
                mine.copy_(other.detach())
            for mine, other in zip(results, function(*static), strict=True):
                mine.copy_(other)
            return results

        return replay


def rerun(function: Flat, inputs: Sequence[Tensor], fixed: int) -> Flat:
    """As on a GPU, but for the graph itself."""
    return Replay(function, inputs, fixed=fixed, hand_out=True, recorder=Rerun)


def test_parameters_that_are_stepped_in_place_are_read_where_they_are(bench: Bench) -> None:
    strategy = Strategy("graph", CPU, backend="traced", capture=rerun)
    chunk = bench.episode()
    context = bench.context.of(chunk)
    for _ in range(2):
        found = strategy.meta_gradient(bench.algorithm, bench.meta, chunk, context)
        expected = bench.algorithm.meta_gradient(bench.meta, chunk, context)
        close(found.outcome.loss, expected.outcome.loss)
        for name, tensor in expected.gradient.items():
            close(found.gradient[name], tensor)
        with torch.no_grad():
            for name, tensor in bench.meta.items():
                tensor -= 0.1 * expected.gradient[name]


@pytest.mark.parametrize("size", [None, 2])
def test_a_graph_is_captured_once_and_replayed(bench: Bench, size: int | None) -> None:
    capture = Capture()
    strategy = Strategy("graph", CPU, backend="traced", capture=capture)
    chunk = bench.episode(size=size)
    other = chunk._replace(support=chunk.support._replace(x=chunk.support.x + 0.1))
    context = dataclasses.replace(bench.context.of(chunk))
    found = [strategy.meta_gradient(bench.algorithm, bench.meta, one, context) for one in (chunk, other)]
    assert capture.captured == 1
    for one, got in zip((chunk, other), found, strict=True):
        expected = bench.algorithm.meta_gradient(bench.meta, one, context)
        close(got.outcome.loss, expected.outcome.loss)
        for name, tensor in expected.gradient.items():
            close(got.gradient[name], tensor, tolerance=1e-9)


def test_convolutions_are_unfolded_for_gpus_alone() -> None:
    assert Strategy("batched", torch.device("cuda")).unfolds
    assert not Strategy("batched", torch.device("cuda"), unfolds=False).unfolds, "a run that was begun so"
    assert not Strategy("batched", CPU).unfolds


@pytest.mark.parametrize(
    ("where", "how"),
    [
        (("cpu", "each", 1), "plain"),
        (("cpu", "batched", 4), "grouped"),
        (("cuda", "each", 4), "plain"),
        (("cuda", "compiled", 1), "plain"),
        (("cuda", "batched", 4), "unfolded"),
        (("cuda", "graph", 4), "unfolded"),
    ],
)
def test_what_is_recorded_of_convolutions_is_what_is_computed(where: tuple[str, Kind, int], how: str) -> None:
    device_type, kind, chunk_size = where
    assert convolutions_of(device_type, kind, chunk_size) == how
    bench = Bench(Trial("maml", "classification", "inductive"), settings={"inner_steps": 1})
    chunk, seen = bench.episode(size=None if chunk_size == 1 else chunk_size), list[tuple[bool, bool]]()

    class Watched(type(bench.algorithm)):  # type: ignore[misc]
        def loss(self, meta: Tensors, episode: TensorEpisode, context: Context) -> Outcome:
            seen.append((context.batched, context.unfolded))
            found: Outcome = super().loss(meta, episode, context)
            return found

    capture = Capture() if kind == "graph" else None
    strategy = Strategy(kind, torch.device(device_type), backend="traced", capture=capture)
    algorithm = Watched(**{name: getattr(bench.algorithm, name) for name in type(bench.algorithm).model_fields})
    strategy.meta_gradient(algorithm, bench.meta, chunk, bench.context.of(chunk))
    words = {(False, False): "plain", (True, False): "grouped", (True, True): "unfolded"}
    assert {words[one] for one in seen} == {how}


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        (("cpu", "conv4", "maml"), "batched"),
        (("cuda", "conv4", "maml"), "graph"),
        (("cuda", "resnet12", "fomaml"), "graph"),
        (("cuda", "mlp", "maml"), "batched"),
        (("cuda", "conv4", "protonet"), "batched"),
        (("cuda", "conv4", "mamlpp"), "batched"),
    ],
)
def test_auto_goes_by_device_model_and_algorithm(where: tuple[str, str, str], kind: str) -> None:
    assert automatic(*where) == kind
