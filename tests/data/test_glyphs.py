import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from metaray.data.class_store import ClassStore
from metaray.data.draws import SPLITS, Draws, Split
from metaray.data.glyphs import Glyphs, Letter, glyph_store, merge_identical, select_letters
from metaray.data.store_file import read_store
from metaray.errors import InputError

LATIN_A, ALPHA, CYRILLIC_A, CYRILLIC_BE, AYB = "A", "\u0391", "\u0410", "\u0411", "\u0531"


def bitmap(value: int) -> NDArray[np.uint8]:
    return np.full((28, 28), value, np.uint8)


def letter(characters: str, split: Split, *values: int) -> Letter:
    return Letter(characters, split, np.stack([bitmap(value) for value in values]))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return glyph_store(tmp_path_factory.mktemp("cache"))


def test_one_shared_bitmap_merges_and_the_earliest_split_wins() -> None:
    renderings = {
        CYRILLIC_A: [bitmap(1), bitmap(2)],
        LATIN_A: [bitmap(2), bitmap(3), bitmap(3)],
        ALPHA: [bitmap(3)],
        AYB: [bitmap(9)],
    }
    merged = {x.characters: x for x in merge_identical(renderings)}
    assert set(merged) == {LATIN_A + ALPHA + CYRILLIC_A, AYB}
    group = merged[LATIN_A + ALPHA + CYRILLIC_A]
    assert group.split == "meta-train" and group.name == "Latin/capital letter a"
    assert sorted(group.bitmaps[:, 0, 0].tolist()) == [1, 2, 3]
    assert merged[AYB].split == "meta-test"


def test_lookalikes_of_an_earlier_split_are_left_out() -> None:
    latin = letter(LATIN_A, "meta-train", 200, 100)
    near = letter(CYRILLIC_A, "meta-val", 203, 30)
    far = letter(CYRILLIC_BE, "meta-val", 150, 20)
    single = letter(AYB, "meta-test", 250)
    assert [x.characters for x in select_letters([single, far, near, latin])] == [LATIN_A, CYRILLIC_BE]


def test_no_bitmap_is_in_two_classes(built: Path) -> None:
    store = read_store(built, verify=True)
    rows = {image.tobytes() for image in store.images}
    assert len(rows) == len(store.images)
    assert all(image.any() for image in store.images)


def test_scripts_are_where_they_belong(built: Path) -> None:
    store = ClassStore(path=str(built))
    scripts = {}
    for split in SPLITS:
        scripts[split] = {store.class_name(int(c)).split("/")[0] for c in store.class_ids(split)}
    assert scripts == {
        "meta-train": {"Latin", "Greek"},
        "meta-val": {"Cyrillic"},
        "meta-test": {"Georgian", "Armenian", "Lao"},
    }
    names = set(store.meta.class_names)
    assert "Latin/capital letter a" in names and "Cyrillic/capital letter a" not in names
    assert "Greek/capital letter alpha" not in names and "Georgian/letter an" in names
    for split in SPLITS:
        store.check(split, ways=20, shots=1, queries=3)


def test_ink_is_centred(built: Path) -> None:
    images = read_store(built).images[:, 0]
    columns, rows = images.any(axis=1), images.any(axis=2)
    for inked in (np.asarray(columns), np.asarray(rows)):
        first, last = inked.argmax(axis=1), 27 - inked[:, ::-1].argmax(axis=1)
        assert np.abs(first + last - 27).max() <= 2
        assert (last - first).max() < 20


def test_second_call_uses_the_cache(built: Path) -> None:
    written = built.stat().st_mtime_ns
    assert glyph_store(built.parent) == built and built.stat().st_mtime_ns == written
    assert [p.name for p in built.parent.iterdir()] == [built.name]


def test_unwritable_cache(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="can't write"):
        glyph_store(tmp_path / "file")


def test_source_wraps_the_store(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaray.data.glyphs._cached_store", lambda: str(built))
    source, store = Glyphs(rotations=True), ClassStore(path=str(built), rotations=True)
    assert source.model_dump() == {"rotations": True}
    assert source.feature_shape == (1, 28, 28) and source.preprocessing.invert
    assert source.fingerprint == store.fingerprint
    spec = {"ways": 5, "shots": 1, "queries": 2}
    source.check("meta-test", **spec)
    draws = [Draws(0, "meta-test", 0) for _ in range(2)]
    mine, theirs = (s.sample_task(d, "meta-test", **spec) for s, d in zip((source, store), draws, strict=True))
    assert np.array_equal(mine.query.x, theirs.query.x)
    assert source.class_name(int(mine.class_ids[0])) == store.class_name(int(mine.class_ids[0]))
    assert source.count_tasks("meta-val", **spec) == store.count_tasks("meta-val", **spec)


def test_importing_the_stage_is_light() -> None:
    code = "import sys, metaray.data; sys.exit(any(m in sys.modules for m in ('matplotlib', 'ray', 'mlflow')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
