"""Tasks of ranges, of Meta-Dataset's sampling and within groups, over a store's classes."""

from itertools import combinations
from math import comb, prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from metaray.config import replace
from metaray.data.class_store import ClassStore
from metaray.data.draws import Draws, Split
from metaray.data.episode_spec import EpisodeSpec
from metaray.data.task import Task, same_examples
from metaray.episodes.sampler import sample_episode
from metaray.errors import InputError
from tests.data.conftest import MakeStore

COUNTS = [2, 5, 3, 4, 6, 4, 9, 7, 8, 3, 12, 10]
GROUPS = ["a", "b", "a", "b", "a", "c", "c", "c", "b", "b", "d", "d"]
SPLITS: dict[Split, list[int]] = {"meta-train": list(range(10)), "meta-test": [10, 11]}
STARTS = np.cumsum([0, *COUNTS])
RANGES = EpisodeSpec(ways=(2, 4), shots=(1, 2), queries=(1, 3))
REST = EpisodeSpec(ways=(2, 4), shots=(1, 2), queries="rest")
PAIRS = EpisodeSpec(ways=2, shots=1, queries=1)
META = EpisodeSpec.meta_dataset(ways=(2, 50), shots=(1, 5), queries=3, max_support=60)
UNEQUAL = pytest.mark.parametrize("spec", [RANGES, REST, META], ids=["ranges", "rest", "meta-dataset"])


@pytest.fixture
def path(make_store: MakeStore) -> str:
    return str(make_store(COUNTS, SPLITS, groups=GROUPS))


def sample(store: ClassStore, spec: EpisodeSpec, index: int = 0, split: Split = "meta-train") -> Task:
    return store.sample_task(Draws(1, split, index), split, spec)


def rows_by_class(images: NDArray[Any], labels: NDArray[Any], ways: int) -> list[list[int]]:
    """The store rows behind unrotated images, their first pixels, by label."""
    return [images[labels == way][:, 0, 0, 0].astype(int).tolist() for way in range(ways)]


def sides(task: Task) -> tuple[list[list[int]], list[list[int]]]:
    ways = len(task.class_ids)
    assert task.support.y.tolist() == sorted(task.support.y) and task.query.y.tolist() == sorted(task.query.y)
    return rows_by_class(task.support.x, task.support.y, ways), rows_by_class(task.query.x, task.query.y, ways)


@UNEQUAL
def test_examples_are_of_their_classes_and_on_one_side(path: str, spec: EpisodeSpec) -> None:
    store = ClassStore(path=path)
    store.check("meta-train", spec)
    for index in range(60):
        task = sample(store, spec, index)
        classes = task.class_ids.tolist()
        assert len(set(classes)) == len(classes) >= 2
        for class_id, support, query in zip(classes, *sides(task), strict=True):
            rows = support + query
            assert support and query and len(set(rows)) == len(rows)
            assert all(STARTS[class_id] <= row < STARTS[class_id + 1] for row in rows)
            if spec.queries == "rest":
                assert len(rows) == COUNTS[class_id]
        for x in (task.support.x, task.query.x):
            assert x.dtype == np.uint8 and x.flags.c_contiguous and x.flags.writeable


@UNEQUAL
@pytest.mark.parametrize("rotations", [False, True])
def test_pure(path: str, spec: EpisodeSpec, rotations: bool) -> None:
    store = ClassStore(path=path, rotations=rotations, within_groups=rotations)
    other = ClassStore.parse(store.model_dump(mode="json"), where="source")
    sample(other, spec, 7)
    for index in (3, 2**63 - 1):
        first, again = (sample_episode(one, spec, "meta-train", 5, index) for one in (store, other))
        assert same_examples(first.task, again.task) and np.array_equal(first.task.class_ids, again.task.class_ids)


def test_sizes_of_ranges_vary_and_are_one_for_all_classes(path: str) -> None:
    seen = set()
    for index in range(200):
        support, query = sides(sample(ClassStore(path=path), RANGES, index))
        (shots,), (queries,) = set(map(len, support)), set(map(len, query))
        seen.add((len(support), shots, queries))
    assert seen == {(n, k, q) for n in (2, 3, 4) for k in (1, 2) for q in (1, 2, 3)}


def test_a_range_holds_the_episodes_of_its_numbers(path: str) -> None:
    """After its sizes, an episode of ranges is drawn as one of these sizes is."""
    store = ClassStore(path=path)
    for index in range(20):
        sizes = RANGES.draw(Draws(1, "meta-train", index))
        later = Draws(1, "meta-train", index)
        later.raw(3)
        fixed = EpisodeSpec(ways=sizes.ways, shots=sizes.shots, queries=sizes.queries or 0)
        task, same = sample(store, RANGES, index), store.sample_task(later, "meta-train", fixed)
        assert np.array_equal(task.query.x, same.query.x) and np.array_equal(task.class_ids, same.class_ids)


def test_meta_dataset_ways_end_with_the_classes(path: str) -> None:
    ways = [len(sample(ClassStore(path=path), META, index).class_ids) for index in range(300)]
    assert set(ways) == set(range(2, 11)), "ten classes with two examples or more"
    turned = [len(sample(ClassStore(path=path, rotations=True), META, index).class_ids) for index in range(300)]
    assert max(turned) > 30


def test_meta_dataset_shots_differ_by_class(path: str) -> None:
    support = [list(map(len, sides(sample(ClassStore(path=path), META, index))[0])) for index in range(100)]
    assert any(len(set(sizes)) > 2 for sizes in support)
    assert all(sum(sizes) <= 60 for sizes in support)


@pytest.mark.parametrize("spec", [PAIRS, EpisodeSpec(ways=(2, 3), shots=1, queries=(1, 2)), META])
@pytest.mark.parametrize("rotations", [False, True])
def test_within_groups(path: str, spec: EpisodeSpec, rotations: bool) -> None:
    store, turns = ClassStore(path=path, rotations=rotations, within_groups=True), 4 if rotations else 1
    store.check("meta-train", spec)
    found = [{GROUPS[i // turns] for i in sample(store, spec, index).class_ids.tolist()} for index in range(100)]
    assert all(len(groups) == 1 for groups in found)
    assert set.union(*found) == {"a", "b", "c"}


def test_groups_are_drawn_alike_however_large(make_store: MakeStore) -> None:
    groups = ["large"] * 20 + ["small"] * 2
    path = make_store([3] * 22, {"meta-train": list(range(22))}, groups=groups)
    store = ClassStore(path=str(path), within_groups=True)
    small = sum(sample(store, PAIRS, index).class_ids[0] >= 20 for index in range(400))
    assert 160 < small < 240


def test_groups_with_too_few_classes_are_passed_over(path: str) -> None:
    store = ClassStore(path=path, within_groups=True)
    spec = EpisodeSpec(ways=4, shots=1, queries=1)
    assert all(GROUPS[i] == "b" for index in range(20) for i in sample(store, spec, index).class_ids)
    with pytest.raises(
        InputError,
        match=r"5 ways asked for, but no group of meta-train \(3 in all\) has more than 4 classes with at least 2 "
        r"examples \(1 shot \+ 1 query\); 10 classes in all .*store\.arrow",
    ):
        store.check("meta-train", replace(spec, ways=5))
    with pytest.raises(InputError, match="5 ways asked for"):
        sample(store, replace(spec, ways=5))
    replace(store, rotations=True).check("meta-train", replace(spec, ways=16))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            EpisodeSpec(ways=(2, 11), shots=(1, 3), queries=2),
            r"up to 11 ways asked for, but meta-train has 5 classes with at least 5 examples \(3 shots \+ 2 queries\)",
        ),
        (
            EpisodeSpec(ways=10, shots=2, queries="rest"),
            r"10 ways asked for, but meta-train has 9 classes with at least 3 examples \(2 shots \+ 1 query or more\)",
        ),
        (
            EpisodeSpec.meta_dataset(ways=(11, 50)),
            r"11 ways or more asked for, but meta-train has 10 classes with at least 2 examples \(1 shot \+ 1 query\)",
        ),
        (EpisodeSpec(ways=(1, 3), shots=1, queries=1), r"ways: a task needs at least 2 classes \(got 1\)"),
    ],
)
def test_refusals(path: str, spec: EpisodeSpec, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClassStore(path=path).check("meta-train", spec)


def brute_force(sizes: list[int], ways: int, shots: int, queries: int | None) -> int:
    """As many as there are, one by one."""
    least = shots + (1 if queries is None else queries)
    choices = [
        comb(n, shots) * (1 if queries is None else comb(n - shots, queries)) if n >= least else 0 for n in sizes
    ]
    return sum(prod(group) for group in combinations(choices, ways))


@pytest.mark.parametrize("turns", [1, 4])
def test_counts(path: str, turns: int) -> None:
    store, sizes = ClassStore(path=path, rotations=turns == 4), COUNTS[:10] * turns
    by_group = [[COUNTS[i] for i in range(10) if GROUPS[i] == group] * turns for group in "abc"]
    one = EpisodeSpec(ways=2, shots=2, queries=1)
    assert replace(store, within_groups=True).count_tasks("meta-train", one) == sum(
        brute_force(group, 2, 2, 1) for group in by_group
    )
    rest = EpisodeSpec(ways=(2, 3), shots=2, queries="rest")
    assert store.count_tasks("meta-train", rest) == sum(brute_force(sizes, ways, 2, None) for ways in (2, 3))
    ranged = EpisodeSpec(ways=(2, 3), shots=(1, 2), queries=(1, 3))
    exact = sum(brute_force(sizes, n, k, q) for n in (2, 3) for k in (1, 2) for q in (1, 2, 3))
    counted = store.count_tasks("meta-train", ranged)
    assert counted == sum(brute_force(sizes, ways, 1, 1) for ways in (2, 3)) <= exact
    meta = EpisodeSpec.meta_dataset(ways=(2, 3), queries=2)
    assert store.count_tasks("meta-train", meta) == sum(brute_force(sizes, ways, 1, 1) for ways in (2, 3))
    assert store.count_tasks("meta-val", meta) == 0


def test_a_store_without_groups(make_store: MakeStore) -> None:
    for importer, remedy in (
        ("omniglot", "import it again: `metaray data import omniglot` now stores the alphabets"),
        ("images", "import it again with --depth 2, or with a column of groups beside the labels"),
        ("mine", "import it again, with groups"),
    ):
        path = make_store(COUNTS, SPLITS, name=f"{importer}.arrow", origin={"importer": importer})
        with pytest.raises(InputError, match=f"within_groups is asked for, but the store does not say .*; {remedy}"):
            ClassStore(path=str(path), within_groups=True).check("meta-train", RANGES)


def test_what_groups_do_to_the_fingerprint(make_store: MakeStore) -> None:
    plain, grouped, others = (
        ClassStore(path=str(make_store(COUNTS, SPLITS, name=f"{i}.arrow", groups=groups)))
        for i, groups in enumerate([None, GROUPS, ["x", *GROUPS[1:]]])
    )
    assert plain.fingerprint == grouped.fingerprint == others.fingerprint, "groups that do not count change nothing"
    within = [replace(store, within_groups=True).fingerprint for store in (grouped, others)]
    assert len({*within, plain.fingerprint}) == 3


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 1))
def test_meta_dataset_within_bounds(tiny_store: Path, seed: int, index: int) -> None:
    spec = EpisodeSpec.meta_dataset(max_support=50)
    episode = sample_episode(ClassStore(path=str(tiny_store)), spec, "meta-train", seed, index)
    ways = len(episode.task.class_ids)
    assert 5 <= ways <= 12 and ways <= len(episode.task.support.y) <= 50
    assert np.bincount(episode.task.query.y).tolist() == [6] * ways, "half of twelve"
    assert (np.bincount(episode.task.support.y) + 6 <= 12).all()
