"""A table of one's own, from the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.data.patients import patients, write

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
