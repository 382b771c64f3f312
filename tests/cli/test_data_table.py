"""A table of one's own, from the command line."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metaray.algorithms import MAML
from metaray.algorithms.algorithm import start
from metaray.data.group_table import GroupTable
from metaray.episodes.episode import EpisodeSpec
from metaray.learners.learner import Learner
from metaray.models import TableMLP
from metaray.tasks import Regression
from tests.data.patients import Lines, patients, write
from tests.data.ratings import ratings

Command = Callable[..., Any]


def untrained_learner(table: Path, judged_by: Any = "mse") -> Learner:
    learner = Learner(
        algorithm=MAML(inner_lr=0.01),
        model=TableMLP(hidden=(4,)),
        meta={},
        preprocessing=GroupTable(path=str(table)).preprocessing,
        spec=EpisodeSpec(shots=2, queries=2),
        task=Regression(mean=20.0, std=3.0, judged_by=judged_by),
    )
    return replace(learner, meta=start(learner.algorithm, learner.model, learner.task_shape, seed=0)[1])


def test_import_and_describe(command: Command, tmp_path: Path) -> None:
    csv, out = write(tmp_path / "patients.csv", patients()), tmp_path / "patients.arrow"
    arguments = ("data", "import", "table", csv, "--task", "patient", "--target", "score", "--out", out)
    code, printed, err = command(*arguments, "--leave-out", "day", "--splits", "0.6,0.2,0.2")
    assert (code, err) == (0, "")
    lines = printed.splitlines()
    assert lines[0] == f"wrote {out}: 9 groups, 69 rows"
    assert lines[1].startswith("splits: 5 / 2 / 2 groups for meta-train, meta-val, meta-test: fractions 0.6 0.2 0.2")
    assert lines[2:4] == ["numbers: age, dose", "categories: colour"]
    assert lines[-1].startswith("to learn it: --set source.target_mean=")
    code, printed, err = command("data", "describe", out, "--shots", "6", "--queries", "2")
    assert (code, err) == (0, "") and "9 groups, 69 rows, regression target 'score'" in printed and "colour" in printed
    code, printed, err = command("data", "describe", out, "--json", "--verify")
    assert (code, err) == (0, "") and json.loads(printed)["parts"][0]["groups"] == 5
    code, printed, err = command("data", "describe", out, "--rotations")
    assert (code, printed) == (
        2,
        "",
    ) and f"--rotations is an option for class stores, and {out} is a table: leave it out" in err


def test_bad_options(command: Command, tmp_path: Path) -> None:
    csv, out = write(tmp_path / "patients.csv", patients()), tmp_path / "patients.arrow"
    arguments = ("data", "import", "table", csv, "--task", "patient", "--out", out)
    code, printed, err = command(*arguments)
    assert (code, printed) == (2, "") and "error: --target: the column of what is predicted; or --wide" in err
    code, _, err = command(*arguments, "--target", "score", "--order-by", "dya")
    assert code == 2 and "--order-by: unknown column 'dya'. Did you mean 'day'?" in err
    assert not out.exists()


@pytest.mark.parametrize("judged_by", ["mse", "mae"])
def test_adapt_by_the_names_of_columns(command: Command, tmp_path: Path, judged_by: Any) -> None:
    """Known rows and new ones; what is missing stays so; a bad cell is named by line and column."""
    csv, out = write(tmp_path / "patients.csv", patients()), tmp_path / "patients.arrow"
    arguments = ("data", "import", "table", csv, "--task", "patient", "--target", "score", "--out", out)
    assert command(*arguments, "--leave-out", "day").code == 0
    untrained_learner(out, judged_by).save(tmp_path / "learner")
    head, *rows = patients()
    known, new = write(tmp_path / "known.csv", [head, *rows[:4]]), write(tmp_path / "new.csv", [head, *rows[4:7]])
    options = ("adapt", tmp_path / "learner", "--support", known, "--query", new, "--y", "score")
    code, printed, err = command(*options)
    assert (code, err) == (0, "") and printed.splitlines()[0].split() == ["age", "dose", "colour", "score"]
    name, _, told = printed.splitlines()[-1].partition(": ")
    trees = json.loads(command(*options, "--json").out)
    errors = [tree["squared_error"] ** (0.5 if judged_by == "mae" else 1) for tree in trees]
    assert name == judged_by and float(told) == pytest.approx(sum(errors) / len(errors), abs=1e-4)
    ages = [float(row[2]) if row[2] else None for row in rows[4:7]]
    assert [tree["age"] for tree in trees] == ages and None in ages and 5 < trees[0]["score"] < 40
    write(new, [head, [*rows[4][:3], "high", *rows[4][4:]]])
    code, _, err = command(*options)
    assert code == 2 and "new.csv, line 2: dose is 'high', not a number" in err


def test_a_strangers_files(command: Command, tmp_path: Path) -> None:
    """Semicolons, decimal commas, other columns in another order, categories that nobody has seen; told where wrong."""
    head, *rows = [line[:2] + [cell.replace(".", ",") for cell in line[2:]] for line in patients()]

    def german(name: str, lines: Lines) -> Path:
        return write(tmp_path / name, [[";".join(line)] for line in lines])

    out = tmp_path / "patients.arrow"
    arguments = ("data", "import", "table", german("all.csv", [head, *rows]), "--task", "patient", "--target", "score")
    code, _, err = command(*arguments, "--leave-out", "day", "--out", out)
    assert code == 2 and "if that is a decimal comma, say --decimal ','" in err
    assert command(*arguments, "--leave-out", "day", "--decimal", ",", "--out", out).code == 0
    untrained_learner(out).save(tmp_path / "learner")
    known = german("known.csv", [["note", *head[::-1]], *(["x", *row[::-1]] for row in rows[:4])])
    new = german("new.csv", [["colour", "dose", "age"], ["grün", "-0,25", "1.000,5"], ["red", "1,5", ""]])
    options = ("adapt", tmp_path / "learner", "--support", known, "--query", new, "--y", "score")
    code, _, err = command(*options)
    assert code == 2 and "known.csv, line 2: age is '" in err and "say --decimal ','" in err
    code, printed, err = command(*options, "--decimal", ",", "--save", tmp_path / "task")
    assert (code, err) == (0, "") and printed.splitlines()[1].split()[:3] == ["1000.5", "-0.25", "grün"]
    code, again, err = command("predict", tmp_path / "task", "--query", new, "--decimal", ",")
    assert (code, err) == (0, "") and again.splitlines() == printed.splitlines()[: len(again.splitlines())]
    code, _, err = command("predict", tmp_path / "task", "--query", new)
    assert code == 2 and "new.csv, line 2: age is '1.000,5', not a number; if that is a decimal comma" in err


def test_items_and_labels(command: Command, tmp_path: Path) -> None:
    csv, out = write(tmp_path / "ratings.csv", ratings()), tmp_path / "ratings.arrow"
    arguments = ("data", "import", "table", csv, "--task", "user", "--target", "rating", "--item", "film", "--out", out)
    code, printed, err = command(*arguments, "--order-by", "when", "--labels", "genres:|", "--splits", "0.6,0.2,0.2")
    assert (code, err) == (0, "")
    assert printed.splitlines()[2:4] == ["labels: genres (3)", printed.splitlines()[3]]
    assert printed.splitlines()[3].startswith("items: film (")
    code, printed, err = command("data", "describe", out)
    assert (code, err) == (0, "") and "rows whose item meta-train has not: " in printed and "in meta-train" in printed
    code, printed, err = command(*arguments, "--labels", "genres")
    assert (code, printed) == (2, "") and "--labels 'genres': write it as COLUMN:SEPARATOR" in err
