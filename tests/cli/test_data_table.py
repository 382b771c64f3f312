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
from tests.data.patients import patients, write
from tests.data.ratings import ratings

Command = Callable[..., Any]


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
    assert (code, printed) == (2, "") and f"--rotations is of class stores, and {out} is a table" in err


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
    learner = Learner(
        algorithm=MAML(inner_lr=0.01),
        model=TableMLP(hidden=(4,)),
        meta={},
        preprocessing=GroupTable(path=str(out)).preprocessing,
        spec=EpisodeSpec(shots=2, queries=2),
        task=Regression(mean=20.0, std=3.0, judged_by=judged_by),
    )
    meta = start(learner.algorithm, learner.model, learner.task_shape, seed=0)[1]
    replace(learner, meta=meta).save(tmp_path / "learner")
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
