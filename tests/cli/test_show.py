import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from metaray.algorithms import NearestNeighbor
from metaray.data.preprocessing import ImagePreprocessing
from metaray.episodes.episode import EpisodeSpec
from metaray.learners.learner import Learner
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
    assert code == 0
    assert re.fullmatch(
        r"warning: the answers of this learner depend on the other queries of the same call \(transductive batch "
        r"norm\): it was judged on 6 queries at once, 2 of each class, and now gets 2\. .*\n",
        err,
    ), "one line, and nothing else"
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


def test_queries_of_a_class_that_the_support_lacks_are_said_and_not_counted(
    adapt: Command, task: Path, tmp_path: Path
) -> None:
    names = sorted(folder.name for folder in (task / "query").iterdir())
    before = adapt("--query", task / "query").out.splitlines()
    right = sum(row.split()[1] == row.split("/")[0] for row in before[1:7] if not row.startswith(names[0] + "/"))
    (task / "query" / names[0]).rename(task / "query" / "$x_")
    code, out, err = adapt("--query", task / "query", "--picture", tmp_path / "task.png")
    assert (code, err) == (0, "")
    assert out.splitlines()[7:9] == [
        f"correct: {right} of 4",
        "not counted: 2 queries of a class that the support lacks: '$x_'",
    ]
    (task / "query" / names[1]).rename(task / "query" / names[1].upper())
    lines = adapt("--query", task / "query").out.splitlines()
    assert lines[-1].startswith("not counted: 4 queries of 2 classes that the support lacks: ")
    assert f"{names[1].upper()!r} (it has {names[1]!r})" in lines[-1]
    rows = json.loads(adapt("--query", task / "query", "--json").out)
    assert [row["counted"] for row in rows] == [row["truth"] == names[2] for row in rows]


def test_names_with_line_breaks_stay_on_their_line(adapt: Command, task: Path) -> None:
    name = min_class(task)
    for side in ("support", "query"):
        (task / side / name).rename(task / side / "a\nb")
    (task / "query" / "a\nb" / "\x1b[2Jx.png").write_bytes(next((task / "query" / "a\nb").iterdir()).read_bytes())
    code, out, err = adapt("--query", task / "query")
    assert (code, err) == (0, "")
    assert "\x1b" not in out and len(out.splitlines()) == 9
    assert "a\\nb/\\x1b[2Jx.png" in out


def test_dollars_in_class_names_are_no_formulas(adapt: Command, task: Path, tmp_path: Path) -> None:
    (task / "support" / min_class(task)).rename(task / "support" / "$a_$")
    assert adapt("--query", task / "query", "--picture", tmp_path / "task.png").code == 0
