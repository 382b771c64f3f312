import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from metaray.algorithms import NearestNeighbor
from metaray.algorithms.learner import Learner
from metaray.data.preprocessing import ImagePreprocessing
from metaray.episodes.episode import EpisodeSpec
from metaray.models import MLP

Command = Callable[..., Any]


@pytest.fixture
def task(command: Command, tiny_store: Path, tmp_path: Path) -> Path:
    """One episode of the tiny store as folders."""
    spec = ("--ways", "3", "--queries", "2")
    assert command("data", "export", tiny_store, "--out", tmp_path / "task", *spec).code == 0
    return tmp_path / "task"


@pytest.fixture
def adapt(trained: Any, command: Command, task: Path) -> Command:
    """`metaray adapt` of the champion to that episode's support."""
    places = ("models:/tiny@champion", "--tracking-uri", trained.uri, "--support", task / "support")
    return lambda *arguments: command("adapt", *places, *arguments)


def test_adapt_to_class_folders(adapt: Command, task: Path, tmp_path: Path) -> None:
    picture = tmp_path / "new" / "task.png"
    code, out, err = adapt("--query", task / "query", "--picture", picture)
    assert (code, err) == (0, "")
    head, *rows, correct, drawn = out.splitlines()
    assert head.split() == ["image", "label", "probability"]
    classes = sorted(folder.name for folder in (task / "support").iterdir())
    right = 0
    for row in rows:
        image, label, probability = row.split()
        assert label in classes
        assert 0 < float(probability) <= 1
        assert (task / "query" / image).is_file()
        right += image.startswith(label + "/")
    assert len(rows) == 6
    assert correct == f"correct: {right} of 6"
    assert drawn == f"picture: {picture}"
    with Image.open(picture) as image:
        assert image.format == "PNG"


def test_adapt_to_a_flat_folder(adapt: Command, task: Path) -> None:
    name = task / "query" / min_class(task)
    code, out, err = adapt("--query", name, "--json", "--inner-steps", "0")
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert [row["image"] for row in rows] == sorted(map(str, name.iterdir()))
    for row in rows:
        assert set(row) == {"image", "label", "probability", "probabilities"}
        assert row["probabilities"][row["label"]] == row["probability"] == max(row["probabilities"].values())
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    code, out, _ = adapt("--query", name)
    assert [line.split()[0] for line in out.splitlines()[1:]] == [path.name for path in sorted(name.iterdir())]
    assert "correct" not in out


def test_adapt_to_one_image(command: Command, task: Path, tmp_path: Path) -> None:
    preprocessing, spec = ImagePreprocessing(height=16, width=16), EpisodeSpec(ways=3, shots=1, queries=2)
    Learner(NearestNeighbor(), MLP(), {}, preprocessing, spec).save(tmp_path / "learner")
    path = next((task / "support" / min_class(task)).iterdir())
    arguments = ("adapt", tmp_path / "learner", "--support", task / "support", "--query", path)
    code, out, err = command(*arguments)
    assert (code, err) == (0, "")
    _, row = out.splitlines()
    assert row.split()[:2] == [path.name, min_class(task)]
    code, out, err = command(*arguments, "--x", "age")
    assert (code, out) == (2, "") and "--x and --y name columns of CSV files" in err


def test_the_truth_in_json(adapt: Command, task: Path) -> None:
    rows = json.loads(adapt("--query", task / "query", "--json").out)
    assert [row["truth"] for row in rows] == [Path(row["image"]).parent.name for row in rows] and len(rows) == 6


def min_class(task: Path) -> str:
    return min(folder.name for folder in (task / "query").iterdir())


def test_class_names_are_shown_as_they_are(adapt: Command, task: Path) -> None:
    name = min_class(task)
    for side in ("support", "query"):
        (task / side / name).rename(task / side / "[bold]x")
    code, out, err = adapt("--query", task / "query")
    assert (code, err) == (0, "")
    assert "[bold]x/" in out
