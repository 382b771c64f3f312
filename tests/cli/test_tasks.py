"""`metaray adapt --save` and `metaray predict`: the same answers, from the folder alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaray.algorithms import MAML, NearestNeighbor, ProtoNet
from metaray.algorithms.algorithm import start
from metaray.algorithms.task_shape import TaskShape
from metaray.data.preprocessing import ImagePreprocessing, VectorPreprocessing
from metaray.episodes.episode import EpisodeSpec
from metaray.learners.learner import Learner
from metaray.models import MLP, Custom
from metaray.tasks import Regression
from tests.user_networks import Plain

Command = Callable[..., Any]


@pytest.fixture
def place(command: Command, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a learner of images and an episode as folders."""
    monkeypatch.chdir(tmp_path)
    spec = ("--ways", "3", "--queries", "2")
    assert command("data", "export", tiny_store, "--out", "task", *spec).code == 0
    preprocessing, episodes = ImagePreprocessing(height=16, width=16), EpisodeSpec(ways=3, shots=1, queries=2)
    model = MLP(hidden=(8,))
    _, meta = start(ProtoNet(), model, TaskShape(preprocessing.feature_shape, 3), seed=0)
    Learner(ProtoNet(), model, meta, preprocessing, episodes).save(Path("learner"))
    return tmp_path


@pytest.fixture
def curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a learner from two numbers to one, and CSV files."""
    monkeypatch.chdir(tmp_path)
    algorithm, model = MAML(inner_lr=0.1), MLP(hidden=(8,), batch_norm=False)
    _, meta = start(algorithm, model, TaskShape((2,), 1, Regression()), seed=0)
    spec = EpisodeSpec(shots=3, queries=2)
    Learner(algorithm, model, meta, VectorPreprocessing(size=2), spec, task=Regression()).save(Path("learner"))
    Path("known.csv").write_text("who,age,dose,height\nA,1,2,3\nB,2,3,4\nC,0,1,2\n")
    Path("asked.csv").write_text("who,age,dose\nD,1,1\nE,2,2\n")
    Path("told.csv").write_text("age,dose,height\n0.5,2,3\n")
    return tmp_path


ADAPT = ("adapt", "learner", "--support", "task/support")


def test_predictions_are_those_of_the_adaptation(command: Command, place: Path) -> None:
    told = command(*ADAPT, "--query", "task/query", "--save", "mine")
    assert (told.code, told.err) == (0, "")
    *lines, saved = told.out.splitlines()
    assert saved == "task: mine; `metaray predict mine --query FILES` predicts with it"
    (place / "learner").rename(place / "gone")
    again = command("predict", "mine", "--query", "task/query")
    assert (again.code, again.out.splitlines()) == (0, lines) and lines[-1].startswith("correct: ")


def test_one_image_several_and_a_folder(command: Command, place: Path) -> None:
    assert command(*ADAPT, "--save", "mine").code == 0
    cls = sorted((place / "task/query").iterdir())[0]
    files = sorted(cls.iterdir())
    whole = json.loads(command("predict", "mine", "--query", cls, "--json").out)
    assert [row["image"] for row in whole] == list(map(str, files)) and len(whole) == 2
    one = json.loads(command("predict", "mine", "--query", files[0], "--json").out)
    assert [row["label"] for row in one] == [whole[0]["label"]]
    for words in (("--query", *files), ("--query", files[0], "--query", files[1])):
        assert json.loads(command("predict", "mine", *words, "--json").out) == whole
    both = command("predict", "mine", "--query", "task/query", files[0])
    assert (both.code, both.out) == (2, "") and "'task/query' holds a folder per class, but other queries" in both.err


def test_saved_without_a_query(command: Command, place: Path) -> None:
    code, out, err = command(*ADAPT, "--save", "mine", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "task": "mine",
        "classes": sorted(path.name for path in (place / "task/query").iterdir()),
    }
    rows = json.loads(command(*ADAPT, "--save", "mine", "--query", "task/query", "--json").out)
    assert len(rows) == 6, "with a query, JSON is what it was"


def test_what_is_wrong_is_said_before_a_model_is_fetched(command: Command, place: Path) -> None:
    for words, said in (
        ((), "give --query, what to predict for, or --save"),
        (("--save", "task"), "can't save a task as 'task': something else is there already"),
        (("--save", "mine", "--picture", "a.png"), "--picture draws predictions: give --query, too"),
    ):
        code, out, err = command("adapt", "models:/nothing@champion", "--support", "task/support", *words)
        assert (code, out) == (2, "") and said in err and err.count("\n") == 1
    for named, said in (
        (("learner",), "holds a learner that is adapted to no task yet"),
        (("nowhere",), "task folder 'nowhere' does not exist"),
    ):
        code, out, err = command("predict", *named, "--query", "task/query")
        assert (code, out) == (2, "") and said in err
    assert command("predict", "learner").code == 2, "without a query"


def test_damage_is_told_in_a_line(command: Command, place: Path) -> None:
    assert command(*ADAPT, "--save", "mine").code == 0
    with (place / "mine/adapted.safetensors").open("r+b") as file:
        file.truncate(50)
    code, out, err = command("predict", "mine", "--query", "task/query")
    assert (code, out) == (2, "") and "does not hold a whole task: adapted.safetensors has 50 bytes instead" in err


def test_numbers_keep_their_columns(command: Command, curve: Path) -> None:
    columns = ("--x", "age,dose", "--y", "height")
    told = command("adapt", "learner", "--support", "known.csv", "--query", "asked.csv", *columns, "--save", "mine")
    assert told.code == 0, told.err
    lines = told.out.splitlines()[:-1]
    assert lines[0].split() == ["age", "dose", "height"]
    again = command("predict", "mine", "--query", "asked.csv")
    assert (again.code, again.out.splitlines()) == (0, lines)
    both = command("predict", "mine", "--query", "asked.csv", "told.csv", "--json")
    rows = json.loads(both.out)
    assert [row["age"] for row in rows] == [1, 2, 0.5] and all("target" not in row for row in rows)
    assert "squared_error" in json.loads(command("predict", "mine", "--query", "told.csv", "--json").out)[0]
    Path("x.csv").write_text("x0,x1\n1,2\n")
    wrong = command("predict", "mine", "--query", "x.csv")
    assert wrong.code == 2 and "lacks the column 'age'" in wrong.err
    assert "cannot be read as a CSV file" in command("predict", "mine", "--query", "learner").err


def test_a_task_of_classes_takes_no_tables(command: Command, place: Path) -> None:
    preprocessing, spec = ImagePreprocessing(height=16, width=16), EpisodeSpec(ways=3, shots=1, queries=2)
    Learner(NearestNeighbor(), MLP(), {}, preprocessing, spec).save(place / "learner")
    assert command(*ADAPT, "--save", "mine").code == 0
    Path("asked.csv").write_text("x\n1\n")
    told = command("predict", "mine", "--query", "asked.csv")
    assert told.code == 2 and "'asked.csv' is not an image that can be read" in told.err


def test_code_of_ones_own_is_trusted_by_name(command: Command, place: Path) -> None:
    preprocessing, spec = ImagePreprocessing(height=16, width=16), EpisodeSpec(ways=3, shots=1, queries=2)
    model = Custom(path=f"{Plain.__module__}:Plain")
    _, meta = start(ProtoNet(), model, TaskShape(preprocessing.feature_shape, 3), seed=0)
    Learner(ProtoNet(), model, meta, preprocessing, spec).save(place / "learner")
    assert command(*ADAPT, "--save", "mine").code == 2
    assert command(*ADAPT, "--save", "mine", "--trust", "tests").code == 0
    code, _, err = command("predict", "mine", "--query", "task/query")
    assert code == 2 and "refusing to import 'tests.user_networks:Plain'" in err and "--trust tests" in err
    assert command("predict", "mine", "--query", "task/query", "--trust", "tests").code == 0


def test_a_task_of_images_is_extended(command: Command, place: Path) -> None:
    """Half of the support, then the rest: the answers of a task of all of it, with the folder's class order."""
    classes = sorted((place / "task/support").iterdir())
    for number, name in enumerate(("first", "rest")):
        for one in classes[:2] if number == 0 else classes[2:]:
            (place / name / one.name).mkdir(parents=True)
            for image in one.iterdir():
                (place / name / one.name / image.name).write_bytes(image.read_bytes())
    whole = command(*ADAPT, "--query", "task/query", "--json").out
    adapt = ("adapt", "learner", "--support", "first", "--save", "mine")
    assert command(*adapt).code == 0
    grow = ("extend", "mine", "--support", "rest")
    # The network has batch norm, which takes its statistics from all examples.
    code, out, err = command(*grow, "--save", "mine")
    assert (code, out) == (2, "") and "holds no examples" in err and "--keep-support" in err
    assert command(*adapt, "--keep-support").code == 0
    code, out, err = command(*grow, "--query", "task/query", "--save", "mine", "--json")
    assert (code, err) == (0, "") and json.loads(out) == json.loads(whole)
    assert command("predict", "mine", "--query", "task/query", "--json").out == out
    saved = command(*grow, "--save", "other", "--json")
    assert json.loads(saved.out) == {"task": "other", "classes": [one.name for one in classes]}, "it grew in place"


def test_a_task_of_rows_goes_on(command: Command, curve: Path) -> None:
    columns = ("--x", "age,dose", "--y", "height")
    assert command("adapt", "learner", "--support", "known.csv", *columns, "--save", "mine").code == 0
    grow = ("extend", "mine", "--support", "told.csv", "--query", "asked.csv")
    code, out, err = command(*grow, "--how", "continue", "--save", "more")
    assert (
        code == 0 and out.splitlines()[-1].startswith("task: more; ") and out.split()[:3] == ["age", "dose", "height"]
    )
    assert command("predict", "more", "--query", "asked.csv").out.splitlines() == out.splitlines()[:-1]
    assert command("predict", "mine", "--query", "asked.csv").out.splitlines() != out.splitlines()[:-1]
    for words, told in (
        (grow[:4], "give --query, what to predict for, or --save"),
        ((*grow, "--how", "go"), "unknown --how 'go'. Known: continue, together."),
        (grow, "a maml learner which learns from all of them can't extend it without"),
    ):
        code, out, err = command(*words)
        assert (code, out) == (2, "") and told in err
    code, _, err = command(
        "adapt", "learner", "--support", "known.csv", *columns, "--query", "asked.csv", "--keep-support"
    )
    assert code == 2 and "give --save, too" in err
