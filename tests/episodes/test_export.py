"""Episodes as folders of images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metaray.config import replace
from metaray.data import ClassStore
from metaray.data.store_file import write_store
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.export import export_episode, source_named
from metaray.episodes.sampler import sample_episode
from metaray.errors import InputError

SPEC = {"ways": 3, "shots": 1, "queries": 2}


def test_the_files_hold_the_episode(tiny_source: ClassStore, tmp_path: Path) -> None:
    out = tmp_path / "task"
    export_episode(tiny_source, SPEC, "meta-test", 0, 7, out)
    episode = sample_episode(tiny_source, EpisodeSpec(**SPEC), "meta-test", 0, 7)
    assert len(list((out / "support").iterdir())) == 3
    for side, x in (("support", episode.support_x), ("query", episode.query_x)):
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


def test_names_that_folders_cannot_tell_apart(tmp_path: Path, tiny_source: ClassStore) -> None:
    path = tmp_path / "store.arrow"
    write_store(
        path,
        images=np.zeros((6, *tiny_source.feature_shape), dtype=np.uint8),
        counts=[2, 2, 2],
        class_names=["a b", "a:b", "a/b"],
        schemes={"default": {"meta-train": [0, 1, 2], "meta-val": [], "meta-test": []}},
        preprocessing=tiny_source.preprocessing,
        origin={},
    )
    export_episode(source_named(str(path), "default"), {**SPEC, "queries": 1}, "meta-train", 0, 0, tmp_path / "task")
    assert len(list((tmp_path / "task/support").iterdir())) == 3


def test_an_existing_folder_is_left_alone(tiny_source: ClassStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot make the folder"):
        export_episode(tiny_source, SPEC, "meta-test", 0, 0, tmp_path)
    assert list(tmp_path.iterdir()) == []
