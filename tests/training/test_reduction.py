"""The fixed tree against a recursive one, the collectives in threads, and several real processes against one."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from jobs.benchmarks.ranks import Threads, part
from metaray.episodes.augmentation import Augmentation
from metaray.episodes.prefetch import Arrival
from metaray.episodes.sampler import chunks_of, sample_meta_batch, share_of
from metaray.experiment.experiment import Evaluation, Experiment
from metaray.experiment.optimizer import Optimizer
from metaray.models import Custom
from metaray.records.result import parameters_sha256
from metaray.training.evaluation import evaluate, judge_of
from metaray.training.outer_loop import chunk_size_of, context_of, initial_state, outer_loop
from metaray.training.reduction import (
    GroupReducer,
    LocalReducer,
    LostRank,
    Reducer,
    TreeNode,
    TreeSum,
    flatten,
    spans,
    total,
    unflatten,
)

MakeExperiment = Callable[..., Experiment]
CPU = torch.device("cpu")
SPECIAL = (0.0, -0.0, 1.0, float("inf"), float("-inf"), float("nan"), 3e38, 1e-45)

shapes = st.lists(st.lists(st.integers(0, 3), max_size=3), max_size=4)


@given(shapes, shapes)
def test_flatten_round_trips(gradients: list[list[int]], riders: list[list[int]]) -> None:
    gradient = {str(i): torch.randn(shape) for i, shape in enumerate(gradients)}
    extra = [torch.randn(shape) for shape in (*riders, [1])]
    buffer = flatten(gradient, *extra)
    assert buffer.ndim == 1 and buffer.is_contiguous()
    blank = {name: torch.zeros_like(tensor) for name, tensor in gradient.items()}
    found, rest = unflatten(buffer, blank, *(torch.zeros_like(t) for t in extra))
    assert list(found) == list(gradient)
    assert all(torch.equal(found[name], gradient[name]) for name in gradient)
    assert all(torch.equal(a, b) for a, b in zip(rest, extra, strict=True))


def test_strided_gradients_keep_their_order() -> None:
    gradient = {"w": torch.arange(6.0).view(2, 3).T}
    found, _ = unflatten(flatten(gradient), gradient)
    assert torch.equal(found["w"], gradient["w"])


class Leaves(NamedTuple):
    """Buffers of magnitudes from 1e-8 to 1e8, in which a sum's bits depend on its order."""

    rows: Tensor

    @classmethod
    def random(cls, count: int, seed: int, *, size: int = 5, special: bool = False) -> "Leaves":
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(count, size, generator=generator)
        rows *= 10.0 ** torch.randint(-8, 9, (count, size), generator=generator)
        if special:
            picked = torch.randint(len(SPECIAL), (count, size), generator=generator)
            rows = torch.tensor(SPECIAL)[picked].where(torch.rand(count, size, generator=generator) < 0.5, rows)
        return cls(rows)

    def of(self, run: range) -> list[Tensor]:
        return [self.rows[index].clone() for index in run]

    def root(self) -> Tensor:
        """The tree by its definition, from the top."""
        count = len(self.rows)

        def node(level: int, place: int) -> Tensor | None:
            if level == 0:
                return self.rows[place] if place < count else None
            left, right = node(level - 1, 2 * place), node(level - 1, 2 * place + 1)
            return left if left is None or right is None else left + right

        root = node((count - 1).bit_length(), 0)
        assert root is not None
        return root


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal to the last bit, the sign of zero included; any NaN is as good as another."""
    return a.shape == b.shape and bool(((a.view(torch.int32) == b.view(torch.int32)) | (a.isnan() & b.isnan())).all())


class Catch(LocalReducer):
    """Keeps the nodes that it is to join."""

    def __init__(self) -> None:
        self.nodes: Sequence[TreeNode] = ()

    def join(self, nodes: Sequence[TreeNode], count: int) -> Tensor:
        self.nodes = nodes
        return torch.empty(0)


def nodes_of(leaves: Leaves, run: range) -> Sequence[TreeNode]:
    catch = Catch()
    total(leaves.of(run), run, len(leaves.rows), catch, "exact")
    return catch.nodes


@st.composite
def runs(draw: st.DrawFn) -> list[range]:
    """A cut of some chunks into contiguous runs that are not empty."""
    count = draw(st.integers(1, 40))
    cuts = draw(st.sets(st.integers(1, count - 1), max_size=7)) if count > 1 else set()
    return [range(start, stop) for start, stop in pairwise([0, *sorted(cuts), count])]


@given(runs(), st.integers(0, 2**32), st.booleans())
def test_any_cut_into_runs_gives_the_same_bits(cut: list[range], seed: int, special: bool) -> None:
    count = cut[-1].stop
    leaves, tree = Leaves.random(count, seed, special=special), TreeSum()
    for run in cut:
        for node in nodes_of(leaves, run):
            tree.push(*node)
    if len(tree.nodes) > 1:
        tree.close(count)
    (root,) = tree.nodes
    assert root.value is not None and same_bits(root.value, leaves.root())
    assert same_bits(total(leaves.of(range(count)), range(count), count, LocalReducer(), "exact"), leaves.root())


@given(runs(), st.integers(0, 2**32))
def test_spans_foretell_the_nodes_of_a_run(cut: list[range], seed: int) -> None:
    count = cut[-1].stop
    leaves = Leaves.random(count, seed)
    for run in cut:
        nodes = nodes_of(leaves, run)
        assert spans(run) == [node[:2] for node in nodes]
        # Nothing is sent twice, and nothing that does not exist.
        assert all(node.value is not None for node in nodes)
        assert len(nodes) <= max(1, 2 * (len(run) - 1).bit_length())
        covered = [chunk for level, place, _ in nodes for chunk in range(place << level, place + 1 << level)]
        assert [chunk for chunk in covered if chunk < count] == list(run)


def test_the_order_does_matter() -> None:
    """Otherwise these tests would show nothing."""
    leaves = Leaves.random(7, seed=0)
    assert not same_bits(leaves.rows.sum(0), leaves.root())
    assert not same_bits(Leaves(leaves.rows.flip(0)).root(), leaves.root())


def test_a_tree_by_hand() -> None:
    a, b, c, d, e = leaves = torch.tensor([1e8, 1.0, -1e8, 1.0, 0.5]).unbind()
    expected = ((a + b) + (c + d)) + e
    assert total([leaf.clone() for leaf in leaves], range(5), 5, LocalReducer(), "exact") == expected == 0.5
    assert spans(range(1, 4)) == [(0, 1), (1, 1)] and spans(range(8)) == [(3, 0)]
    assert spans(range(3, 9)) == [(0, 3), (2, 1), (0, 8)] and spans(range(1)) == [(0, 0)]


def test_fast_sums_in_order() -> None:
    leaves = Leaves.random(7, seed=1, size=50)
    expected = leaves.rows[0].clone()
    for row in leaves.rows[1:]:
        expected += row
    found = total(leaves.of(range(7)), range(7), 7, LocalReducer(), "fast")
    assert same_bits(found, expected) and not same_bits(found, leaves.root())


@pytest.mark.parametrize("reduction", ["exact", "fast"])
def test_a_rank_that_brings_too_few_leaves(reduction: Any) -> None:
    with pytest.raises((ValueError, AssertionError)):
        total([], range(2), 2, LocalReducer(), reduction)


def test_one_rank_is_its_own_sum() -> None:
    buffer = torch.arange(3.0)
    reducer = LocalReducer()
    assert reducer.sum_(buffer) is buffer and (reducer.rank, reducer.world_size) == (0, 1)


def joined(count: int, world_size: int, size: int, seeds: Sequence[int]) -> None:
    """Each rank joins its chunks, one meta-batch after the other; every rank has the tree's bits each time."""
    batches = [Leaves.random(count, seed, size=size) for seed in seeds]

    def work() -> list[Tensor]:
        reducer = GroupReducer()
        mine = chunks_of(count, reducer.rank, world_size)
        return [total(leaves.of(mine), mine, count, reducer, "exact").clone() for leaves in batches]

    for sums in Threads(world_size).run(work):
        assert all(same_bits(a, leaves.root()) for a, leaves in zip(sums, batches, strict=True))


@settings(max_examples=60)
@given(st.data(), st.integers(1, 9), st.integers(1, 23), st.integers(0, 2**32))
def test_ranks_join_the_tree_of_one_process(data: st.DataObject, world_size: int, size: int, seed: int) -> None:
    count = data.draw(st.integers(world_size, 33), label="count")
    joined(count, world_size, size, [seed, seed + 1])


@pytest.mark.parametrize(("count", "world_size"), [(6, 6), (12, 4), (12, 12), (20, 7), (24, 8)])
def test_a_last_run_that_ends_within_the_tree(count: int, world_size: int) -> None:
    joined(count, world_size, 5, [0])


@pytest.mark.parametrize("reduction", ["exact", "fast"])
def test_a_rank_says_when_it_waits_for_others(reduction: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever watches could not tell who keeps the others waiting."""
    marks: list[str] = []

    class Marked(GroupReducer):
        def __init__(self) -> None:
            self.rank, self.world_size, self._buffers = 0, 2, {}

        def mark(self, doing: str) -> None:
            marks.append(doing)

    def lost(*tensors: Any) -> None:
        assert marks == ["computing", "reducing"]
        raise RuntimeError("Connection closed by peer")

    for name in ("all_reduce", "all_to_all_single"):
        monkeypatch.setattr(dist, name, lost)
    with pytest.raises(LostRank, match="do not answer any more: Connection closed by peer"):
        total([torch.ones(3)], range(1), 2, Marked(), reduction)


class WithDropout(nn.Sequential):
    """Draws random numbers, which must not depend on the rank either."""

    def __init__(self, feature_shape: tuple[int, ...], outputs: int | None) -> None:
        super().__init__(nn.Flatten(), nn.Dropout(0.3), nn.Linear(math.prod(feature_shape), outputs or 8))


def shares(experiment: Experiment, reducer: Reducer) -> Iterator[Arrival]:
    size, chunk_size = experiment.meta_batch_size, chunk_size_of(experiment, CPU)
    for step in range(experiment.num_steps):
        indices = share_of(step, size, reducer.rank, reducer.world_size, chunk_size=chunk_size)
        batch = sample_meta_batch(experiment.source, experiment.episodes, "meta-train", experiment.seed, indices)
        yield Arrival(step, batch, 0.0)


def train(experiment: Experiment, reducer: Reducer, *, stop_at: int | None = None) -> dict[str, Tensor]:
    """The parameters; losses, scores, norms and stop flags of all steps; scores on meta-val."""
    state = initial_state(experiment, CPU)
    asked = iter(range(experiment.num_steps))
    stop = lambda: next(asked) == stop_at  # noqa: E731
    steps = list(outer_loop(experiment, state, shares(experiment, reducer), reducer, CPU, stop))
    log = torch.tensor([[s.loss, s.score, s.gradient_norm, float(s.stop)] for s in steps], dtype=torch.float64)
    scores = evaluate(
        experiment.algorithm,
        state.meta,
        context_of(experiment, state.network, training=False),
        judge_of(experiment, "meta-val"),
        device=CPU,
        chunk_size=chunk_size_of(experiment, CPU),
        reducer=reducer,
    )
    judged = torch.from_numpy(scores.loss), torch.from_numpy(scores.score)
    return {**{name: t.detach() for name, t in state.meta.items()}, "log": log, "judged": torch.stack(judged)}


def rank_main(rank: int, world_size: int, folder: str) -> None:
    """Train all experiments of a folder, in the order of their names."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    reducer = GroupReducer()
    for file in sorted(Path(folder).glob("*.json")):
        experiment = Experiment.from_json(file.read_text())
        # Only the last rank is asked to stop: all must see it, at the same step.
        found = train(experiment, reducer, stop_at=1 if rank == world_size - 1 else None)
        save_file({name: t.contiguous() for name, t in found.items()}, f"{folder}/{file.stem}.{rank}")
    part()


@pytest.mark.parametrize(
    "world_size", [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_processes_equal_one_to_the_last_bit(world_size: int, make_experiment: MakeExperiment, tmp_path: Path) -> None:
    changes = {"num_steps": 3, "optimizer": Optimizer(outer_lr=0.02, clip_norm=0.5)}
    experiments = {
        # Five, and seven in four chunks of which the last is smaller: never the same share for all.
        "five": make_experiment(meta_batch_size=5, chunk_size=1, **changes),
        "seven": make_experiment(
            meta_batch_size=7, chunk_size=2, evaluation=Evaluation(every=0, val_episodes=11), **changes
        ),
        # The last run ends within the tree, where four ranks share it.
        "twelve": make_experiment(meta_batch_size=12, chunk_size=1, **changes),
        "dropout": make_experiment(meta_batch_size=7, model=Custom(path=f"{__name__}:WithDropout"), **changes),
        "seeded": make_experiment(meta_batch_size=5, seed=1, **changes),
        "augmented": make_experiment(
            meta_batch_size=7,
            chunk_size=2,
            augmentation=Augmentation(crop_padding=2, flip=True, brightness=0.2, contrast=0.2, cutout=4),
            **changes,
        ),
        "fast": make_experiment(meta_batch_size=5, reduction="fast", **changes),
    }
    for name, experiment in experiments.items():
        (tmp_path / f"{name}.json").write_text(experiment.to_json())
    alone = {name: train(experiment, LocalReducer(), stop_at=1) for name, experiment in experiments.items()}
    spawn(rank_main, args=(world_size, str(tmp_path)), nprocs=world_size)
    assert parameters_sha256(alone["five"]) != parameters_sha256(alone["seeded"])
    for name, expected in alone.items():
        assert expected["log"][:, 3].tolist() == [0, 1, 0]
        ranks = [load_file(tmp_path / f"{name}.{rank}") for rank in range(world_size)]
        for key, tensor in expected.items():
            assert all(torch.equal(found[key], ranks[0][key]) for found in ranks), (name, key)
            if name == "fast":
                # Adam scales the rounding errors of biases before a batch norm up to whole steps.
                if key == "log":
                    torch.testing.assert_close(ranks[0][key], tensor, rtol=1e-3, atol=1e-4)
            else:
                assert torch.equal(ranks[0][key], tensor), (name, key)


def deserter(rank: int, folder: str) -> None:
    meeting = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    if rank == 1:
        os._exit(0)  # without a word
    reducer = GroupReducer()
    acts: dict[str, Callable[[], object]] = {
        "sum": lambda: reducer.sum_(torch.ones(3)),
        "join": lambda: total([torch.ones(3)], range(1), 2, reducer, "exact"),
    }
    for name, act in acts.items():
        try:
            act()
        except LostRank as error:
            (Path(folder) / name).write_text(str(error))
    os._exit(0)  # as `part` does, without the other


def test_who_stays_behind_hears_of_it(tmp_path: Path) -> None:
    spawn(deserter, args=(str(tmp_path),), nprocs=2)
    for name in ("sum", "join"):
        assert (tmp_path / name).read_text().startswith("the other workers do not answer any more: ")
