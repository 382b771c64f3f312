"""What a node knows of the stores that it has read whole."""

import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaray.data import ClassStore, verified
from metaray.data.draws import SPLITS, Draws
from metaray.data.store_file import StoreFile, read_store
from metaray.data.verified import MOST_RECORDS, open_store
from metaray.errors import InputError
from tests.damage import KINDS, damaged
from tests.data.conftest import MakeStore

SPLITTED = {"meta-train": [0, 1, 2], "meta-val": [3, 4], "meta-test": [5, 6]}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METARAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "verified"


@pytest.fixture
def store(make_store: MakeStore) -> Path:
    return make_store([4] * 7, SPLITTED)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each opening of a store read it whole."""
    found: list[bool] = []

    def read(path: Path, *, verify: bool = False) -> StoreFile:
        found.append(verify)
        return read_store(path, verify=verify)

    monkeypatch.setattr(verified, "read_store", read)
    return found


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """So much later that the files are at rest."""
    at = time.time() + 60
    monkeypatch.setattr("metaray.data.verified.time.time", lambda: at)


def flip(path: Path, at: int | None = None) -> None:
    raw = bytearray(path.read_bytes())
    at = raw.index(read_store(path).images[5].tobytes()) + 3 if at is None else at
    raw[at] ^= 4
    with path.open("r+b") as file:  # in place: the inode stays
        file.write(raw)


def test_a_store_is_read_whole_once_a_node(store: Path, reads: list[bool], later: None, cache: Path) -> None:
    for _ in range(3):
        open_store(store)
    assert reads == [True, False, False] and len(list(cache.iterdir())) == 1


def test_verify_reads_it_again(store: Path, reads: list[bool], later: None) -> None:
    open_store(store)
    open_store(store, verify=True)
    assert reads == [True, True]


def test_a_store_that_was_just_written_is_read_again(store: Path, reads: list[bool], cache: Path) -> None:
    """Its times might not change with its content: they are only so fine."""
    open_store(store)
    open_store(store)
    assert reads == [True, True] and not cache.exists()


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_store_that_changed_since_is_refused(store: Path, later: None, keep_times: bool) -> None:
    open_store(store)
    before = store.stat()
    flip(store)
    if keep_times:
        os.utime(store, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InputError, match=r"store\.arrow: damaged: .*; import the data again .* or copy the file again"):
        open_store(store)


def test_a_replaced_or_touched_or_linked_store_is_read_again(
    store: Path, reads: list[bool], later: None, tmp_path: Path
) -> None:
    open_store(store)
    other = tmp_path / "other"
    other.write_bytes(store.read_bytes())
    other.replace(store)
    open_store(store)
    os.utime(store)
    open_store(store)
    (tmp_path / "link.arrow").symlink_to(store)
    open_store(tmp_path / "link.arrow")
    assert reads == [True, True, True, False]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"path": 3}', "[" * 10000])
def test_a_damaged_record_vouches_for_nothing(
    store: Path, reads: list[bool], later: None, cache: Path, text: str
) -> None:
    open_store(store)
    (record,) = cache.iterdir()
    record.write_text(text)
    open_store(store)
    open_store(store)
    assert reads == [True, True, False]


def test_a_cache_that_takes_nothing_costs_another_look(
    store: Path, reads: list[bool], later: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("METARAY_CACHE", str(tmp_path / "file"))
    open_store(store)
    open_store(store)
    assert reads == [True, True]


def test_records_do_not_pile_up(store: Path, later: None, cache: Path) -> None:
    cache.mkdir(parents=True)
    for number in range(MOST_RECORDS):
        (cache / f"{number}.json").write_text("")
        os.utime(cache / f"{number}.json", (number, number))
    open_store(store)
    left = {path.name for path in cache.iterdir()}
    assert len(left) <= MOST_RECORDS // 2 + 1 and "0.json" not in left and f"{MOST_RECORDS - 1}.json" in left


def test_a_store_that_changes_while_it_is_read(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path, *, verify: bool = False) -> StoreFile:
        os.utime(store)
        return read_store(path, verify=verify)

    monkeypatch.setattr(verified, "read_store", read)
    with pytest.raises(InputError, match=r"store\.arrow: changes while it is read: wait until whoever writes it"):
        open_store(store)


def sampled(path: Path) -> list[Any]:
    """All that a run would see of a store."""
    source = ClassStore(path=str(path))
    seen: list[Any] = [source.fingerprint, source.preprocessing]
    for split in SPLITS:
        task = source.sample_task(Draws(0, split, 0), split, ways=2, shots=2, queries=2)
        arrays = (*task.support, *task.query, task.class_ids)
        seen += [(array.dtype, array.shape, array.tobytes()) for array in arrays]
        seen += [source.class_name(int(class_id)) for class_id in source.class_ids(split)]
        seen += [source.examples(int(class_id)).tobytes() for class_id in source.class_ids(split)]
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_no_damaged_store_is_sampled(store: Path, tmp_path: Path, kind: str) -> None:
    rng, raw, wanted = random.Random(kind), store.read_bytes(), sampled(store)
    count, refused = 30 if kind == "flip" else 12, 0
    for case in range(count):
        path = tmp_path / f"damaged-{case}.arrow"
        path.write_bytes(damaged(raw, kind, rng))
        try:
            assert sampled(path) == wanted, f"{kind} {case}"
        except InputError:
            refused += 1
    assert refused > count / 2


def test_glyphs_that_are_damaged_are_rendered_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from metaray.data import glyphs

    built = []

    def build(path: Path) -> None:
        built.append(path)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(source.read_bytes())

    source = glyphs.glyph_store()
    monkeypatch.setattr(glyphs, "build_glyphs", build)
    folder = tmp_path / "glyphs"
    path = glyphs.glyph_store(folder)
    assert glyphs.glyph_store(folder) == path and len(built) == 1
    flip(path)
    assert glyphs.glyph_store(folder) == path and len(built) == 2
    assert np.array_equal(read_store(path, verify=True).images, read_store(source).images)
