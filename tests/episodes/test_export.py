"""Episodes as folders of images."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from metaray.config import replace
from metaray.data import ClassStore
from metaray.data.names import is_clutter
from metaray.data.preprocessing import ImagePreprocessing
from metaray.data.source import Source
from metaray.data.store_file import write_store
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.export import export_episode, folder_names, source_named
from metaray.episodes.sampler import sample_episode
from metaray.errors import InputError
from metaray.serving.folders import read_support

SPEC = {"ways": 3, "shots": 1, "queries": 2}


def test_the_files_hold_the_episode(tiny_source: ClassStore, tmp_path: Path) -> None:
    out = tmp_path / "task"
    export_episode(tiny_source, SPEC, "meta-test", 0, 7, out)
    episode = sample_episode(tiny_source, EpisodeSpec(**SPEC), "meta-test", 0, 7)
    assert len(list((out / "support").iterdir())) == 3
    for side, x in (("support", episode.task.support.x), ("query", episode.task.query.x)):
        paths = sorted((out / side).glob("*/*.png"), key=lambda path: path.name)
        assert len(paths) == len(x)
        for path, pixels in zip(paths, x, strict=True):
            with Image.open(path) as image:
                assert np.array_equal(tiny_source.preprocessing.image(image), pixels)


def test_the_files_hold_the_episode_of_a_store_with_a_range(tmp_path: Path, tiny_source: ClassStore) -> None:
    ranged = replace(tiny_source.preprocessing, value_range=(0, 4095))
    images = np.random.default_rng(0).integers(0, 256, (6, *tiny_source.feature_shape), dtype=np.uint8)
    splits = {"meta-train": [0, 1, 2], "meta-val": [], "meta-test": []}
    names, path = ["a", "b", "c"], tmp_path / "store.arrow"
    write_store(
        path,
        images=images,
        counts=[2, 2, 2],
        class_names=names,
        schemes={"default": splits},  # type: ignore[dict-item]
        preprocessing=ranged,
        origin={},
    )
    export_episode(
        ClassStore(path=str(path)), {"ways": 3, "shots": 1, "queries": 1}, "meta-train", 0, 0, tmp_path / "task"
    )
    for name in names:
        written = [ranged.image(Image.open(file)) for file in sorted((tmp_path / "task").rglob(f"{name}/*.png"))]
        held = images[2 * names.index(name) : 2 * names.index(name) + 2]
        assert {one.tobytes() for one in written} == {one.tobytes() for one in held}


def store_of(tmp_path: Path, names: list[str]) -> Source:
    write_store(
        tmp_path / "store.arrow",
        images=np.arange(2 * len(names) * 64, dtype=np.uint32).astype(np.uint8).reshape(-1, 1, 8, 8),
        counts=[2] * len(names),
        class_names=names,
        schemes={"default": {"meta-train": list(range(len(names))), "meta-val": [], "meta-test": []}},
        preprocessing=ImagePreprocessing(height=8, width=8),
        origin={},
    )
    return source_named(str(tmp_path / "store.arrow"), "default")


@pytest.mark.parametrize(
    "names",
    [
        ["..", ".", ".hidden", "x" * 300, "x" * 299],
        ["../../up", "/etc/passwd", "a/../../b", "..\\up", "C:\\x"],
        ["con", "NUL.txt", "com1", "aux.", "lpt9"],
        ["Thumbs.db", "__MACOSX", "desktop.ini", "@eaDir", ".DS_Store"],
        ["a b", "a:b", "a/b", "A_B", "a\nb"],
        [" ", "", "\t", "   ", "\n"],
        ["a.", "a ", "a", "a..", "a. ."],
        ["\u732b" * 200, "caf\u00e9", "cafe\u0301", "-rf", "$HOME"],
        ["a_1", "a", "A", "a_2", "a_1_1"],
    ],
)
def test_every_class_gets_a_folder_inside_the_new_one(tmp_path: Path, names: list[str]) -> None:
    assert_round_trip(tmp_path, names)


@given(st.lists(st.text(max_size=12) | st.sampled_from(["..", ".", "con", "a/b"]), min_size=2, max_size=6, unique=True))
def test_folder_names_of_any_class_names(names: list[str]) -> None:
    found = folder_names(names, range(len(names)))
    assert len({name.casefold() for name in found}) == len(names)
    for name in found:
        assert name not in ("", ".", "..") and not is_clutter(name) and not set(name) & set("/\\:\0\n ")
        assert not name.endswith(".") and len(name.encode()) <= 255 and Path(name).name == name


def assert_round_trip(tmp_path: Path, names: list[str]) -> None:
    place = tmp_path / "place"
    place.mkdir()
    source = store_of(tmp_path, names)
    export_episode(source, {"ways": 5, "shots": 1, "queries": 1}, "meta-train", 0, 0, place / "deep" / "task")
    assert [path.name for path in place.iterdir()] == ["deep"]
    assert [path.name for path in (place / "deep").iterdir()] == ["task"]
    episode = sample_episode(source, EpisodeSpec(ways=5, shots=1, queries=1), "meta-train", 0, 0)
    for side, x in (("support", episode.task.support.x), ("query", episode.task.query.x)):
        labelled = read_support(place / "deep" / "task" / side)
        assert len(set(labelled.labels)) == 5
        for path in labelled.paths:
            with Image.open(path) as image:
                assert np.array_equal(ImagePreprocessing(height=8, width=8).image(image), x[int(path.stem)])


def test_nothing_is_left_of_an_export_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = store_of(tmp_path, ["a", "b", "c"])
    saved = Image.Image.save

    def full(image: Image.Image, path: Path) -> None:
        if path.name == "002.png":
            raise OSError(28, "No space left on device")
        saved(image, path)

    monkeypatch.setattr(Image.Image, "save", full)
    (tmp_path / "place").mkdir()
    with pytest.raises(InputError, match="cannot make the folder .*task.*No space left"):
        export_episode(source, {**SPEC, "queries": 1}, "meta-train", 0, 0, tmp_path / "place" / "task")
    assert list((tmp_path / "place").iterdir()) == []


def test_an_existing_folder_is_left_alone(tiny_source: ClassStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot make the folder"):
        export_episode(tiny_source, SPEC, "meta-test", 0, 0, tmp_path)
    assert list(tmp_path.iterdir()) == []
