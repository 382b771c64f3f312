"""Raw rows in whatever users hold them, by the names of their columns."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from metaray.config import replace
from metaray.data.preprocessing import PREPROCESSINGS, CategoryColumn, NumberColumn, Preprocessing, TablePreprocessing
from metaray.data.preprocessing.table import CATEGORIES, MISSING, NUMBERS
from metaray.errors import InputError
from metaray.imports import dump_kind, parse_kind

TABLE = TablePreprocessing(
    numbers=(NumberColumn(name="age", mean=50, std=10, missing=True), NumberColumn(name="dose", mean=1, std=2)),
    categories=(CategoryColumn(name="colour", categories=("blue", "red")),),
)
ROWS: list[dict[str, Any]] = [
    {"colour": "red", "age": 60, "dose": 3, "id": 7},
    {"colour": "green", "age": None, "dose": 1.0, "id": 8},
    {"colour": "", "age": 40.0, "dose": -1, "id": 9},
]
EXPECTED = [[1, 1, 0, 2], [0, 0, 1, 0], [-1, -1, 0, 0]]
FRAME = pd.DataFrame(ROWS)


@pytest.mark.parametrize(
    "given",
    [
        ROWS,
        FRAME,
        pa.Table.from_pylist(ROWS),
        pa.Table.from_pylist(ROWS).to_batches()[0],
        {name: FRAME[name] for name in FRAME},
        {name: [row[name] for row in ROWS] for name in ROWS[0]},
        [[60, 3, "red"], [None, 1, "green"], [40, -1, ""]],
        np.array([["60", "3", "red"], ["", "1", "green"], ["40", "-1", ""]], dtype=object),
        FRAME.convert_dtypes(),
        np.array(
            [(60.0, 3, "red"), (np.nan, 1, "green"), (40, -1, "")],
            dtype=[("age", "f8"), ("dose", "f4"), ("colour", "U9")],
        ),
    ],
    ids=[
        "dicts",
        "pandas",
        "arrow",
        "batch",
        "dict of series",
        "dict of lists",
        "lists",
        "objects",
        "NA",
        "structured",
    ],
)
def test_rows_in_any_form(given: Any) -> None:
    found = TABLE.read(given)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, EXPECTED)


def test_one_row() -> None:
    for given in (ROWS[0], [60, 3, "red"], [ROWS[0]]):
        np.testing.assert_allclose(TABLE.read(given), EXPECTED[:1])
    plain = TablePreprocessing(numbers=(NumberColumn(name="a"), NumberColumn(name="b")))
    np.testing.assert_allclose(plain.read(np.array([1.0, 2.0])), [[1, 2]])
    np.testing.assert_allclose(TablePreprocessing(numbers=(NumberColumn(name="a"),)).read([1.0, 2.0]), [[1], [2]])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([{"age": 1, "colour": "red"}], "row 0 of x lacks the column 'dose'; it has age, colour"),
        ([ROWS[0], {**ROWS[0], "dose": None}], "row 1 of x: dose is missing, but no row lacked it"),
        ([ROWS[0], {**ROWS[0], "dose": "much"}], "row 1 of x: dose is 'much', not a number"),
        ([{**ROWS[0], "dose": float("inf")}], "row 0 of x: dose is inf"),
        ([{**ROWS[0], "dose": 1e300}], "row 0 of x: dose is 1e.300, too far from the 1"),
        (FRAME.drop(columns="age"), "x lacks the column 'age'; it has colour, dose, id"),
        (pd.concat([FRAME, FRAME["age"]], axis=1), "x has the column 'age' 2 times"),
        ([[1, 2]], "row 0 of x has 2 cells, but there are 3 columns, in this order: age, dose, colour"),
        ([], "no rows given"),
        (7, "x is of type int"),
        ([ROWS[0], [1, 2, "red"]], "row 1 of x is .*list.*; give a dict each"),
        ({"age": [1, 2], "dose": [1], "colour": ["red", "red"]}, "differ in length"),
    ],
)
def test_what_is_wrong_is_named(given: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        TABLE.read(given)


def test_cells_of_a_file() -> None:
    names, where = ["Age", "dose", "colour"], lambda row: f"f.csv, line {row + 2}"
    rows = TABLE.from_cells([["60", "3", "red"], ["", "1", "x"]], names, where)
    np.testing.assert_allclose(TABLE.read(rows), [[1, 1, 0, 2], [0, 0, 1, 0]])
    with pytest.raises(InputError, match="f.csv, line 3: dose is missing"):
        TABLE.from_cells([["60", "3", "red"], ["", "", "x"]], names, where)
    with pytest.raises(InputError, match=r"f.csv, line 2 \(column 'Age'\): age is 'old', not a number"):
        TABLE.from_cells([["old", "3", "red"]], names, where)


def test_what_a_network_takes() -> None:
    x = TABLE.normalize(torch.tensor(EXPECTED, dtype=torch.float32))
    assert isinstance(x, dict)
    assert x[NUMBERS].tolist() == [[1, 1], [0, 0], [-1, -1]] and x[MISSING].tolist() == [[0], [1], [0]]
    assert x[CATEGORIES].tolist() == [[2], [0], [0]] and x[CATEGORIES].dtype == torch.int64
    assert TABLE.comparable(x).tolist()[1] == [0, 0, 1, 1, 0, 0]
    plain = replace(TABLE, categories=(), numbers=(TABLE.numbers[1],))
    assert plain.is_plain and isinstance(plain.normalize(torch.zeros(2, 1)), torch.Tensor)
    assert not isinstance(TABLE.normalize(torch.from_numpy(TABLE.probe(4))), torch.Tensor)
    assert TABLE.probe(4)[:, 2].sum() == 2 and set(TABLE.probe(4)[:, 3]) == {0, 1, 2}


def test_json_and_columns() -> None:
    tree = json.loads(json.dumps(dump_kind(TABLE, PREPROCESSINGS)))
    assert parse_kind(tree, PREPROCESSINGS, Preprocessing, what="preprocessing") == TABLE
    assert [(one.name, one.type) for one in TABLE.columns] == [
        ("age", "double"),
        ("dose", "double"),
        ("colour", "string"),
    ]
    TABLE.read([TABLE.example_cells(share) for share in (0.0, 1.0)])
    with pytest.raises(InputError, match="two columns are named 'age'"):
        replace(TABLE, categories=(CategoryColumn(name="age", categories=()),))
