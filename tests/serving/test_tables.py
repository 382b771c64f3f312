"""Regression tasks as CSV files."""

import re
from pathlib import Path
from typing import Any

import pytest

from metaray.errors import InputError
from metaray.learners.learner import Learner
from metaray.serving.tables import is_table, read_points, read_tables, require_folders, split_names


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "points.csv"


def test_one_number(file: Path, curve: Learner) -> None:
    file.write_text("y, x\n1,2\n\n-3e1 , 4.5\n", encoding="utf-8-sig")
    found = read_points(file, curve, targets=True)
    assert found.x.tolist() == [[2], [4.5]] and found.y is not None and found.y.tolist() == [[1], [-30]]


def test_several_numbers(file: Path, field: Learner) -> None:
    file.write_text("x0,x1,y0,y1,y2\n1,2,3,4,5\n")
    found = read_points(file, field, targets=True)
    assert found.x.tolist() == [[1, 2]] and found.y is not None and found.y.tolist() == [[3, 4, 5]]


def test_targets_of_queries_may_be_missing(file: Path, curve: Learner) -> None:
    file.write_text("x\n1\n2\n")
    found = read_points(file, curve, targets=False)
    assert found.x.tolist() == [[1], [2]] and found.y is None
    with pytest.raises(InputError, match=r"points.csv' lacks the column 'y'; its first line is 'x'"):
        read_points(file, curve, targets=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the column 'x'; its first line is ''"),
        ("1,2\n3,4\n", "lacks the column 'x'; its first line is '1,2'"),
        ("x,y\n", "has no rows below its header 'x,y'"),
        ("x,y,z\n1,2,3\n", "Known: x, y."),
        ("x,x,y\n1,2,3\n", "has the column 'x' 2 times"),
        ("x,y\n1,2\n3,four\n", "line 3: y is 'four', not a number"),
        ("x,y\n1\n", "line 2: y is '', not a number"),
        ("x,y\n1,2,3\n", "line 2: more cells than columns"),
        ("x,y\n1,nan\n", "line 2: y is nan; give a finite number"),
    ],
)
def test_what_is_refused(text: str, message: str, file: Path, curve: Learner) -> None:
    file.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        read_points(file, curve, targets=True)


def test_columns_may_have_names_of_their_own(file: Path, field: Learner) -> None:
    file.write_text("patient,dose,age,low,mid,high\nA,1,2,3,4,5\n")
    names: dict[str, Any] = {"x": ["age", "dose"], "y": split_names("low, mid,high")}
    found = read_points(file, field, targets=True, **names)
    assert found.x.tolist() == [[2, 1]] and found.y is not None and found.y.tolist() == [[3, 4, 5]]
    assert found.names == ("age", "dose", "low", "mid", "high")
    with pytest.raises(
        InputError,
        match=re.escape("lacks the column 'x0'; its first line is 'patient,dose,age,low,mid,high'; --x and --y say"),
    ):
        read_points(file, field, targets=True)
    with pytest.raises(InputError, match=re.escape("--x 'age' names 1 column, but this learner has 2: x0,x1")):
        read_points(file, field, targets=True, x=["age"], y=names["y"])
    with pytest.raises(InputError, match="lacks the column 'weight'"):
        read_points(file, field, targets=False, x=["age", "weight"], y=names["y"])
    assert split_names(None) == [] and split_names('"a,b",c') == ["a,b", "c"]


def test_what_cannot_be_read(file: Path, curve: Learner, maml: Learner) -> None:
    with pytest.raises(InputError, match="cannot be read as a CSV file"):
        read_points(file, curve, targets=True)
    file.write_bytes(b"\xff\xfe\x00x,y")
    with pytest.raises(InputError, match="cannot be read as a CSV file"):
        read_points(file, curve, targets=True)
    with pytest.raises(InputError, match="a maml learner of classes takes a folder with a folder of images per class"):
        read_points(file, maml, targets=True)


def test_folders_are_for_classes(curve: Learner, field: Learner, maml: Learner) -> None:
    require_folders(maml)
    with pytest.raises(InputError, match=re.escape("CSV files with the columns x,y as --support and --query, or call")):
        require_folders(curve)
    with pytest.raises(InputError, match=re.escape("x0,x1,y0,y1,y2")):
        require_folders(field)


def test_what_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "letters.csv").mkdir()
    (tmp_path / "points.txt").touch()
    names = ("letters.csv", "points.txt", "missing.CSV", "missing")
    assert [is_table(tmp_path / name) for name in names] == [False, True, True, False]


def test_inputs_of_two_axes(file: Path, matrix: Learner) -> None:
    file.write_text("x0,x1,x2,x3,x4,x5,y\n1,2,3,4,5,6,7\n")
    found = read_points(file, matrix, targets=True)
    assert found.x.tolist() == [[[1, 2, 3], [4, 5, 6]]] and found.y is not None and found.y.tolist() == [[7]]


def test_several_tables_one_after_the_other(tmp_path: Path, curve: Learner) -> None:
    one, other, known = (tmp_path / name for name in ("one.csv", "other.csv", "known.csv"))
    one.write_text("x\n1\n2\n")
    other.write_text("x\n3\n")
    known.write_text("x,y\n4,5\n")
    found = read_tables([other, one], curve)
    assert found.x.tolist() == [[3], [1], [2]] and found.y is None and found.names == ("x", "y")
    assert read_tables([known, one], curve).y is None
    whole = read_tables([known, known], curve)
    assert whole.y is not None and whole.y.tolist() == [[5], [5]]
