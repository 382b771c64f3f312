from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metaray.data.class_store import ClassStore
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from metaray.plots import task_pictures as module
from metaray.plots.task_pictures import TaskPicture, draw_episodes, draw_task
from tests.data.conftest import MakeStore


def test_episodes_of_a_source(make_store: MakeStore, tmp_path: Path) -> None:
    store = ClassStore(path=str(make_store([4, 4, 4], {"meta-test": [0, 1, 2]})), rotations=True)
    draw_episodes(store, tmp_path / "new" / "a.png", "meta-test", EpisodeSpec(ways=3, shots=1, queries=2), count=2)
    draw_episodes(store, tmp_path / "b.png", "meta-test", EpisodeSpec(ways=3, shots=1, queries=2), count=2)
    with Image.open(tmp_path / "new" / "a.png") as first, Image.open(tmp_path / "b.png") as second:
        assert first.format == "PNG" and first.height > 300
        assert np.array_equal(np.asarray(first), np.asarray(second))


def test_queries_stand_in_the_row_of_their_class(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where classes have unequal numbers of them."""
    drawn: list[TaskPicture] = []
    monkeypatch.setattr(module, "draw_tasks", lambda pictures, path: drawn.extend(pictures))
    store = ClassStore(path=str(make_store([4, 2, 3], {"meta-test": [0, 1, 2]})))
    spec = EpisodeSpec(ways=3, shots=1, queries="rest")
    draw_episodes(store, tmp_path / "a.png", "meta-test", spec, count=3)
    for picture in drawn:
        rows, left = list(dict.fromkeys(picture.support_labels)), {"class0": 3, "class1": 1, "class2": 2}
        expected = [(row, column) for row, label in enumerate(rows) for column in range(left[label])]
        assert module._places(picture) == expected
    unsaid = drawn[0]._replace(query_labels=())
    assert module._places(unsaid) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]


def test_predictions_are_coloured(tmp_path: Path) -> None:
    x = np.zeros((3, 3, 4, 4), np.uint8)
    draw_task(x, ["a", "b", "c"], x, ["a", "x", "c"], tmp_path / "t.png", correct=[True, False, True], title="t")
    with Image.open(tmp_path / "t.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in ((0x1A, 0x7F, 0x37), (0xCF, 0x22, 0x2E)):
        assert (np.abs(pixels.astype(int) - colour).max(axis=1) < 60).any()


def test_what_cannot_be_drawn(tmp_path: Path, make_store: MakeStore) -> None:
    flat = np.zeros((2, 5))
    with pytest.raises(InputError, match="can't be drawn"):
        draw_task(flat, ["a", "b"], flat, [], tmp_path / "t.png")
    store = ClassStore(path=str(make_store([4], {"meta-test": [0]})))
    with pytest.raises(InputError, match="2 ways asked for"):
        draw_episodes(store, tmp_path / "t.png", "meta-test", EpisodeSpec(ways=2, shots=1, queries=1))
    (tmp_path / "file").touch()
    x = np.zeros((1, 1, 4, 4), np.uint8)
    with pytest.raises(InputError, match="can't write the picture"):
        draw_task(x, ["a"], x, [], tmp_path / "file" / "t.png")
