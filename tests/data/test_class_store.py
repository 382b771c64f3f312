import copy
import pickle
from collections.abc import Iterator
from itertools import combinations
from math import comb, prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from metaray.data.class_store import ClassStore, _elementary_symmetric
from metaray.data.draws import Draws, Split
from metaray.data.task import same_examples
from metaray.errors import InputError
from tests.data.conftest import MakeStore
from tests.data.small_server import SmallServer, small_server, without_proxies

COUNTS = [2, 5, 3, 4, 6, 4]
SPLITS: dict[Split, list[int]] = {"meta-train": [0, 1, 2], "meta-val": [3], "meta-test": [4, 5]}
SPEC = {"ways": 2, "shots": 1, "queries": 2}


@pytest.fixture
def path(make_store: MakeStore) -> str:
    return str(make_store(COUNTS, SPLITS))


def rows_of(store: ClassStore, images: NDArray[Any]) -> list[int]:
    """The store rows behind unrotated images: their first pixel."""
    rows: list[int] = images[:, 0, 0, 0].astype(int).tolist()
    return rows


def test_sample_holds_distinct_examples_of_its_classes(path: str) -> None:
    store = ClassStore(path=path)
    starts = np.cumsum([0, *COUNTS])
    for index in range(50):
        task = store.sample_task(Draws(1, "meta-train", index), "meta-train", **SPEC)
        rows = rows_of(store, task.support.x) + rows_of(store, task.query.x)
        assert len(set(rows)) == 6
        labels = [*task.support.y, *task.query.y]
        for row, label in zip(rows, labels, strict=True):
            class_id = task.class_ids[label]
            assert starts[class_id] <= row < starts[class_id + 1]
        # Class 0 has two examples, and the task needs three.
        assert set(task.class_ids.tolist()) == {1, 2}
        for x in (task.support.x, task.query.x):
            assert x.dtype == np.uint8 and x.flags.c_contiguous and x.flags.writeable


def test_shapes_and_labels_are_class_major(path: str) -> None:
    task = ClassStore(path=path).sample_task(Draws(0, "meta-test", 3), "meta-test", ways=2, shots=3, queries=1)
    assert task.support.x.shape == (6, 1, 3, 3) and task.query.x.shape == (2, 1, 3, 3)
    assert task.support.y.tolist() == [0, 0, 0, 1, 1, 1] and task.query.y.tolist() == [0, 1]


@pytest.mark.parametrize("rotations", [False, True])
def test_sampling_is_pure(path: str, rotations: bool) -> None:
    store, other = (ClassStore(path=path, rotations=rotations) for _ in range(2))
    other.sample_task(Draws(9, "meta-train", 0), "meta-train", **SPEC)
    for index in (0, 2**63):
        first, again = (s.sample_task(Draws(5, "meta-train", index), "meta-train", **SPEC) for s in (store, other))
        assert same_examples(first, again) and np.array_equal(first.class_ids, again.class_ids)


def test_rotations_are_classes_of_the_same_split(path: str) -> None:
    plain, store = ClassStore(path=path), ClassStore(path=path, rotations=True)
    assert store.class_ids("meta-test").tolist() == list(range(16, 24))
    assert store.class_name(17) == "class4/rot090" and plain.class_name(4) == "class4"
    for class_id in store.class_ids("meta-test"):
        base, turn = divmod(int(class_id), 4)
        expected = np.rot90(plain.examples(base), turn, axes=(-2, -1))
        assert np.array_equal(store.examples(int(class_id)), expected)


def test_rotated_tasks_hold_rotated_examples(path: str) -> None:
    store = ClassStore(path=path, rotations=True)
    turns = set()
    for index in range(20):
        task = store.sample_task(Draws(0, "meta-test", index), "meta-test", ways=5, shots=1, queries=2)
        assert set(task.class_ids.tolist()) <= set(range(16, 24))
        for x, y in ((task.support.x, task.support.y), (task.query.x, task.query.y)):
            for image, label in zip(x, y, strict=True):
                pool = store.examples(int(task.class_ids[label]))
                assert any(np.array_equal(image, example) for example in pool)
        turns |= {int(c) % 4 for c in task.class_ids}
    assert turns == {0, 1, 2, 3}


def test_rotations_need_squares(make_store: MakeStore) -> None:
    store = ClassStore(path=str(make_store([2, 2], {"meta-train": [0, 1]}, size=(3, 4))), rotations=True)
    with pytest.raises(InputError, match=r"square images, but an example has the shape \(1, 3, 4\)"):
        store.check("meta-train", ways=2, shots=1, queries=1)


def test_check_gives_the_numbers(path: str) -> None:
    store = ClassStore(path=path)
    message = (
        r"20 ways asked for, but meta-train has 2 classes with at least 3 examples \(1 shot \+ 2 queries\); "
        r"3 classes in all"
    )
    with pytest.raises(InputError, match=message):
        store.check("meta-train", ways=20, shots=1, queries=2)
    with pytest.raises(InputError, match=message):
        store.sample_task(Draws(0, "meta-train", 0), "meta-train", ways=20, shots=1, queries=2)
    store.check("meta-train", **SPEC)
    ClassStore(path=path, rotations=True).check("meta-train", ways=8, shots=1, queries=2)


def test_one_class_is_no_task(path: str) -> None:
    with pytest.raises(InputError, match=r"ways: a task needs at least 2 classes \(got 1\)"):
        ClassStore(path=path).check("meta-train", ways=1, shots=1, queries=1)


def test_too_few_examples_to_draw(make_store: MakeStore) -> None:
    store = ClassStore(path=str(make_store([4], {"meta-val": [0]})))
    with pytest.raises(InputError, match=r"5 examples asked for, but meta-val has 4 examples in all .*\.arrow"):
        store.draw_examples(Draws(0, "meta-val", 0), "meta-val", 5)


def test_unknown_scheme_and_missing_file(path: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown split scheme .* 'defualt'. Did you mean 'default'"):
        _ = ClassStore(path=path, split="defualt").fingerprint
    with pytest.raises(InputError, match=r"none\.arrow: no such class store"):
        _ = ClassStore(path=str(tmp_path / "none.arrow")).meta


def test_a_split_that_the_scheme_lacks_is_empty(make_store: MakeStore) -> None:
    store = ClassStore(path=str(make_store([2, 2], {"meta-train": [0, 1]})))
    assert store.summary("meta-test").classes == 0
    with pytest.raises(InputError, match="meta-test has 0 classes"):
        store.check("meta-test", ways=2, shots=1, queries=1)


def brute_force(sizes: list[int], ways: int, shots: int, queries: int) -> int:
    choices = [comb(n, shots) * comb(n - shots, queries) if n >= shots + queries else 0 for n in sizes]
    return sum(prod(group) for group in combinations(choices, ways))


@pytest.mark.parametrize("rotations", [False, True])
@pytest.mark.parametrize("spec", [(2, 1, 2), (1, 2, 2), (3, 1, 1), (2, 5, 5)])
def test_count_tasks(path: str, rotations: bool, spec: tuple[int, int, int]) -> None:
    ways, shots, queries = spec
    store = ClassStore(path=path, rotations=rotations)
    for split, ids in SPLITS.items():
        sizes = [COUNTS[i] for i in ids] * (4 if rotations else 1)
        counted = store.count_tasks(split, ways=ways, shots=shots, queries=queries)
        assert counted == brute_force(sizes, ways, shots, queries)


@given(st.lists(st.integers(0, 5), max_size=7), st.integers(0, 4))
def test_elementary_symmetric_polynomial(values: list[int], degree: int) -> None:
    multiplicities = {value: values.count(value) for value in values}
    assert _elementary_symmetric(multiplicities, degree) == sum(map(prod, combinations(values, degree)))


def test_count_of_many_equal_classes_is_exact() -> None:
    assert _elementary_symmetric({310080: 6492}, 20) == comb(6492, 20) * 310080**20


def test_it_is_a_value(path: str) -> None:
    store = ClassStore(path=path, rotations=True)
    closed = ClassStore(path=path, rotations=True)
    task = store.sample_task(Draws(0, "meta-train", 0), "meta-train", **SPEC)
    assert store == closed and hash(store) == hash(closed)
    assert len(pickle.dumps(store)) < 1000
    for other in (
        pickle.loads(pickle.dumps(store)),
        copy.deepcopy(store),
        ClassStore.parse(store.model_dump(mode="json"), where="source"),
    ):
        again = other.sample_task(Draws(0, "meta-train", 0), "meta-train", **SPEC)
        assert other == store and np.array_equal(task.query.x, again.query.x)


def test_a_store_that_was_written_again_is_seen(make_store: MakeStore) -> None:
    store = ClassStore(path=str(make_store(COUNTS, SPLITS)))
    before = store.fingerprint
    make_store(COUNTS[::-1], SPLITS)
    assert store.fingerprint != before


@pytest.fixture
def server(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallServer]:
    monkeypatch.setenv("METARAY_CACHE", str(tmp_path / "cache"))
    with small_server() as served:
        without_proxies(monkeypatch, served)
        served.objects["/store"] = Path(path).read_bytes()
        yield served


def test_a_remote_store_is_fetched_when_it_is_opened(path: str, server: SmallServer) -> None:
    store = ClassStore(path=f"{server.address}/store")
    again = ClassStore.parse(pickle.loads(pickle.dumps(store)).model_dump(mode="json"), where="source")
    assert again == store and server.asked == []
    assert store.fingerprint == ClassStore(path=path).fingerprint
    assert server.asked == [("HEAD", "/store"), ("GET", "/store")]


def test_a_remote_store_stays_open(path: str, server: SmallServer, tmp_path: Path) -> None:
    store, local = ClassStore(path=f"{server.address}/store"), ClassStore(path=path)
    before = store.fingerprint
    server.asked.clear()
    server.objects.clear()
    for entry in (tmp_path / "cache" / "stores").glob("*.arrow"):  # swept
        entry.unlink()
    for index in range(5):
        tasks = [s.sample_task(Draws(1, "meta-train", index), "meta-train", **SPEC) for s in (store, local)]
        assert all(np.array_equal(a, b) for a, b in zip(*tasks, strict=True))
    assert store.fingerprint == before and server.asked == []


def test_a_file_uri_is_a_path(path: str) -> None:
    assert ClassStore(path=f"file://{path}").fingerprint == ClassStore(path=path).fingerprint


def test_a_scheme_is_checked_at_construction() -> None:
    with pytest.raises(
        InputError, match="source: path: unknown scheme of 'htp://host/store' 'htp'. Did you mean 'http'"
    ):
        ClassStore.parse({"path": "htp://host/store"}, where="source")


def test_a_uri_holds_no_password(server: SmallServer) -> None:
    """It would be stored with every checkpoint and MLflow run."""
    address = f"{server.address}/store".replace("//", "//me:secret@")
    with pytest.raises(InputError, match=r"path: http://me:\*\*\*@.* holds a credential: leave it out") as caught:
        ClassStore.parse({"path": address}, where="source")
    assert "secret" not in str(caught.value)


def test_fingerprint_covers_scheme_and_rotations(path: str) -> None:
    assert ClassStore(path=path).fingerprint != ClassStore(path=path, rotations=True).fingerprint


def test_summary(path: str) -> None:
    assert ClassStore(path=path).summary("meta-train") == (3, 10, 2, 3.0, 5)
    assert ClassStore(path=path, rotations=True).summary("meta-train") == (12, 40, 2, 3.0, 5)
