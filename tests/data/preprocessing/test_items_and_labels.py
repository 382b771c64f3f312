"""Columns of items and of several labels: what is read, and what no table has."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from metaray.config import replace
from metaray.data.preprocessing import ItemColumn, LabelsColumn, TablePreprocessing
from metaray.errors import InputError

ITEM = ItemColumn(
    name="film", items=("1", "2"), sums=(8.0, 3.0), counts=(2, 1), global_mean=3.0, shrinkage=2.0, offset_shrinkage=1.0
)
GENRES = LabelsColumn(name="genres", separator="|", labels=("Comedy", "War"))
TABLE = TablePreprocessing(labels=(GENRES,), item=ITEM)
EXPECTED = [[1, 0, (8 + 6) / 4, np.log(3), 1], [1, 1, (3 + 6) / 3, np.log(2), 2], [0, 0, 3, 0, 0]]


@pytest.mark.parametrize(
    "rows",
    [
        pd.DataFrame({"film": [1, 2, 7], "genres": ["Comedy", "War | Comedy|War", "Western"], "other": 0}),
        pd.DataFrame({"film": [1.0, 2.0, np.nan], "genres": ["Comedy", "Comedy|War", None]}),
        pa.table({"genres": ["Comedy", "Comedy|War", ""], "film": ["1", " 2", None]}),
        {"film": ["1", "2", ""], "genres": ["Comedy|", "War|Comedy", "|"]},
        [["Comedy", 1], ["Comedy|War", 2], [None, 3]],
    ],
    ids=["frame", "floats", "arrow", "dict", "rows"],
)
def test_rows_as_users_hold_them(rows: Any) -> None:
    np.testing.assert_allclose(TABLE.read(rows), EXPECTED, rtol=1e-6)


def test_cells_of_a_csv_file() -> None:
    assert [(column.name, column.type) for column in TABLE.columns] == [("genres", "string"), ("film", "string")]
    cells = [["Comedy", "1"], ["Comedy|War", "2"], ["", ""]]
    found = TABLE.from_cells(cells, ["genres", "film"], lambda i: f"line {i}")
    np.testing.assert_allclose(TABLE.read(found), EXPECTED, rtol=1e-6)
    assert TABLE.example_cells(1.0) == ["War", "2"]


def test_json_comes_back() -> None:
    again, row = TablePreprocessing.model_validate_json(TABLE.model_dump_json()), {"film": [2], "genres": ["War"]}
    assert again == TABLE and (again.read(row) == TABLE.read(row)).all()


def test_without_shrinkage_means_are_those_of_the_rows() -> None:
    plain = replace(ITEM, shrinkage=0.0)
    assert plain.means(plain.look_up(["1", "2", "x"])).tolist() == [4, 3, 3]


@pytest.mark.parametrize(
    ("part", "changes", "told"),
    [
        (ITEM, {"counts": (2,)}, "2 items, 2 sums and 1 counts"),
        (ITEM, {"items": ("1", "1")}, "an item is there twice"),
        (ITEM, {"counts": (0, 1)}, "an item of meta-train has at least one target"),
        (ITEM, {"counts": (2**53, 1)}, r"fewer than 2\*\*53"),
        (ITEM, {"sums": (float("nan"), 1.0)}, "finite"),
        (GENRES, {"labels": ("War", "War")}, "a label is there twice"),
        (GENRES, {"separator": ""}, "separator"),
        (TABLE, {"labels": (replace(GENRES, name="film"),)}, "two columns are named 'film'"),
    ],
)
def test_what_no_table_has(part: Any, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        replace(part, **changes)
