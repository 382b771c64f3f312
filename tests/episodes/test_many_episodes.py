"""A meta-batch that is drawn all at once holds, byte for byte, the episodes that are drawn one by one."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaray.data import UMTRA, ClassStore, FunctionFamily, Source
from metaray.data.draws import SPLITS, Draws, Split
from metaray.data.inputs import parts_of
from metaray.data.many_draws import ManyDraws
from metaray.data.preprocessing import ImagePreprocessing, VectorPreprocessing
from metaray.data.ragged import joined
from metaray.data.store_file import write_store
from metaray.data.task import Task
from metaray.episodes.episode import EpisodeSpec, stack
from metaray.episodes.sampler import sample_episode, sample_meta_batch
from metaray.errors import InputError

COUNTS = [2 + (7 * i) % 11 for i in range(60)]
GROUPS = [f"group{i * i % 7 % 4}" for i in range(60)]
SCHEME: dict[Split, list[int]] = {split: list(range(place, 60, 3)) for place, split in enumerate(SPLITS)}
FIXED = EpisodeSpec(ways=3, shots=2, queries=3)


def write(path: Path, examples: Any, counts: list[int], scheme: dict[Split, list[int]], groups: Any = None) -> str:
    images = not isinstance(examples, np.ndarray) or examples.ndim == 4
    write_store(
        path,
        examples=examples,
        counts=counts,
        class_names=[f"class{i}" for i in range(len(counts))],
        schemes={"default": scheme},
        preprocessing=ImagePreprocessing(height=5, width=5) if images else VectorPreprocessing(size=3),
        origin={},
        groups=groups,
    )
    return str(path)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Images of classes of unequal size in groups, vectors in float32, and 100,000 classes."""
    folder, draws = tmp_path_factory.mktemp("stores"), np.random.default_rng(0)
    images = draws.integers(0, 256, (sum(COUNTS), 1, 5, 5), dtype=np.uint8)
    vectors = draws.standard_normal((sum(COUNTS), 3), dtype=np.float32)
    many = draws.integers(0, 256, (300_000, 3)).astype(np.float32)
    return {
        "images": write(folder / "images.arrow", images, COUNTS, SCHEME, GROUPS),
        "vectors": write(folder / "vectors.arrow", vectors, COUNTS, SCHEME),
        "many": write(folder / "many.arrow", many, [3] * 100_000, {"meta-train": list(range(100_000))}),
    }


def require_same(source: Source, spec: EpisodeSpec, split: Split, seed: int, indices: list[int]) -> None:
    expected = stack([sample_episode(source, spec, split, seed, index) for index in indices])
    found = sample_meta_batch(source, spec, split, seed, indices)
    for one, other in zip(found.stacks, expected.stacks, strict=True):
        for array, wanted in zip(_arrays(one), _arrays(other), strict=True):
            assert array.dtype == wanted.dtype and np.array_equal(array, wanted)
            assert array.flags.c_contiguous and array.flags.writeable
    # What a sampler actor sends: buffers out of band, and the same words about them.
    buffers: list[list[bytes]] = [[], []]
    for batch, kept in zip((found, expected), buffers, strict=True):
        pickle.dumps(batch, protocol=5, buffer_callback=lambda buffer, kept=kept: kept.append(bytes(buffer.raw())))  # type: ignore[misc]
    assert buffers[0] == buffers[1] and buffers[0]


def _arrays(record: Any) -> list[Any]:
    if isinstance(record, tuple):
        return [array for part in record for array in _arrays(part)]
    return parts_of(record)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["images", "vectors", "many"]),
    rotations=st.booleans(),
    within_groups=st.booleans(),
    spec=st.builds(EpisodeSpec, ways=st.integers(2, 6), shots=st.integers(1, 4), queries=st.integers(1, 6)),
    split=st.sampled_from(SPLITS),
    seed=st.integers(0, 2**64 - 1),
    indices=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=9),
)
def test_class_stores(
    stores: dict[str, str],
    name: str,
    rotations: bool,
    within_groups: bool,
    spec: EpisodeSpec,
    split: Split,
    seed: int,
    indices: list[int],
) -> None:
    images = name == "images"
    source = ClassStore(path=stores[name], rotations=images and rotations, within_groups=images and within_groups)
    try:
        source.check(split, spec)
    except InputError as refused:
        with pytest.raises(InputError) as caught:
            sample_meta_batch(source, spec, split, seed, indices)
        assert str(caught.value) == str(refused)
        return
    require_same(source, spec, split, seed, indices)


OTHERS: dict[str, tuple[Callable[[str], Source], EpisodeSpec]] = {
    "ranges": (lambda path: ClassStore(path=path), EpisodeSpec(ways=(2, 4), shots=(1, 2), queries=2)),
    "rest": (lambda path: ClassStore(path=path), EpisodeSpec(ways=3, shots=1, queries="rest")),
    "meta-dataset": (lambda path: ClassStore(path=path), EpisodeSpec.meta_dataset(ways=(2, 5), shots=(1, 5))),
    "umtra": (lambda path: UMTRA(source=ClassStore(path=path), max_shift=2), FIXED),
    "sinusoids of many sizes": (lambda path: FunctionFamily(noise=0.1), EpisodeSpec(shots=(1, 5), queries=7)),
}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("case", OTHERS)
def test_what_is_not_drawn_side_by_side(case: str, split: Split, stores: dict[str, str]) -> None:
    make, spec = OTHERS[case]
    require_same(make(stores["images"]), spec, split, 2**64 - 1, [0, 5, 2**63 - 1, 5])


@given(
    source=st.builds(
        FunctionFamily,
        family=st.sampled_from(["sinusoid", "line"]),
        noise=st.sampled_from([0.0, 0.3]),
        oracle=st.booleans(),
        x=st.sampled_from([(-5.0, 5.0), (0.0, 1e6)]),
    ),
    spec=st.builds(EpisodeSpec, shots=st.integers(1, 40), queries=st.integers(1, 40)),
    split=st.sampled_from(SPLITS),
    seed=st.integers(0, 2**64 - 1),
    indices=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=9),
)
def test_functions(source: FunctionFamily, spec: EpisodeSpec, split: Split, seed: int, indices: list[int]) -> None:
    require_same(source, spec, split, seed, indices)


@pytest.mark.parametrize("spec", [EpisodeSpec(ways=2, shots=1, queries=1), EpisodeSpec(shots=1, queries="rest")])
def test_functions_that_are_none_are_refused_as_one_by_one(spec: EpisodeSpec) -> None:
    with pytest.raises(InputError) as alone:
        sample_episode(FunctionFamily(), spec, "meta-train", 0, 0)
    with pytest.raises(InputError) as together:
        sample_meta_batch(FunctionFamily(), spec, "meta-train", 0, [0])
    assert str(alone.value) == str(together.value)


@pytest.mark.parametrize("index", [-1, 2**63, 2**64 - 1, 2**64])
def test_indices_that_no_episode_has_are_refused(index: int) -> None:
    source, spec = FunctionFamily(), EpisodeSpec(shots=1, queries=1)
    with pytest.raises(InputError, match=rf"0 to 2\*\*63 - 1 \(got {index}\)"):
        sample_episode(source, spec, "meta-train", 0, index)
    with pytest.raises(InputError, match=rf"0 to 2\*\*63 - 1 \(got {index}\)"):
        sample_meta_batch(source, spec, "meta-train", 0, [3, index, 4])
    require_same(source, spec, "meta-train", 0, [2**63 - 1])


def test_ragged_examples_are_padded_to_the_lengths_of_their_own_episodes(tmp_path: Path) -> None:
    rows = [np.full(1 + 5 * (i % 7), i, dtype=np.int64) for i in range(40)]
    path = tmp_path / "ragged.arrow"
    write_store(
        path,
        examples=joined(rows, "example"),
        counts=[10] * 4,
        class_names=["a", "b", "c", "d"],
        schemes={"default": {"meta-train": [0, 1, 2, 3]}},
        preprocessing=VectorPreprocessing(size=3),
        origin={},
    )
    spec = EpisodeSpec(ways=2, shots=1, queries=1)
    batch = sample_meta_batch(ClassStore(path=str(path)), spec, "meta-train", 0, range(40))
    assert len(batch.stacks) > 1
    require_same(ClassStore(path=str(path)), spec, "meta-train", 0, list(range(40)))


def test_all_is_drawn_with_one_gather_for_each_side(stores: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    taken, take = [], np.take

    def counted(examples: Any, rows: Any, **options: Any) -> Any:
        taken.append(len(rows))
        return take(examples, rows, **options)

    monkeypatch.setattr(np, "take", counted)
    monkeypatch.delattr(ClassStore, "sample_task")
    sample_meta_batch(ClassStore(path=stores["images"]), FIXED, "meta-train", 0, range(50))
    assert taken == [50 * 3 * 2, 50 * 3 * 3]


class Reversed(ClassStore):
    """Its tasks are those of the store the other way round."""

    kind: ClassVar[str] = "reversed"

    def sample_task(self, draws: Draws, split: Split, spec: EpisodeSpec) -> Task:
        support, query, class_ids = super().sample_task(draws, split, spec)
        return Task(query, support, class_ids)


class Counted(Reversed):
    """And here it says how to draw many of them, which counts."""

    kind: ClassVar[str] = "counted"
    calls: ClassVar[list[int]] = []

    def sample_tasks(self, draws: ManyDraws, split: Split, spec: EpisodeSpec) -> list[Task]:
        self.calls.append(len(draws))
        return [Task(query, support, ids) for support, query, ids in super().sample_tasks(draws, split, spec)]


def test_a_task_of_its_own_is_never_drawn_as_its_parents(stores: dict[str, str]) -> None:
    require_same(Reversed(path=stores["images"]), FIXED, "meta-train", 1, [3, 4])
    store = sample_meta_batch(ClassStore(path=stores["images"]), FIXED, "meta-train", 1, [3, 4]).stacks[0].task
    found = sample_meta_batch(Reversed(path=stores["images"]), FIXED, "meta-train", 1, [3, 4]).stacks[0].task
    assert np.array_equal(found.support.x, store.query.x)
    sample_meta_batch(Counted(path=stores["images"]), FIXED, "meta-train", 1, [3, 4])
    assert Counted.calls == [2]


def test_no_episodes_are_refused(tiny_source: ClassStore) -> None:
    with pytest.raises(ValueError, match="no episodes to sample"):
        sample_meta_batch(tiny_source, FIXED, "meta-train", 0, [])
