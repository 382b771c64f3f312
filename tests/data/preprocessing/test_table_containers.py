"""Rows of a table in whatever people hold them: all are read as the same rows."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from metaray.data.preprocessing import CategoryColumn, NumberColumn, TablePreprocessing
from metaray.errors import InputError

TABLE = TablePreprocessing(
    numbers=(NumberColumn(name="age", mean=50, std=10, missing=True), NumberColumn(name="dose")),
    categories=(CategoryColumn(name="colour", categories=("blue", "red")),),
)
FRAME = pd.DataFrame({"age": [40.0, np.nan, 60.0], "dose": [1, 2, 3], "colour": ["red", "green", None]})
EXPECTED = np.array([[-1, 1, 0, 2], [0, 2, 1, 0], [1, 3, 0, 0]], dtype=np.float32)
ARROW = pa.Table.from_pandas(FRAME, preserve_index=False)

CONTAINERS: dict[str, Any] = {
    "a frame": FRAME,
    "other columns, another order": FRAME.assign(day=pd.Timestamp("2024-01-31"))[["day", "colour", "dose", "age"]],
    "categoricals": FRAME.assign(colour=FRAME["colour"].astype("category")),
    "nullable integers": FRAME.assign(age=FRAME["age"].astype("Int64")),
    "nullable everything": FRAME.convert_dtypes(),
    "arrow-backed": FRAME.convert_dtypes(dtype_backend="pyarrow"),
    "numbers as texts": FRAME.assign(dose=["1", " 2 ", "3.0"]),
    "an arrow table": ARROW,
    "a record batch": ARROW.to_batches()[0],
    "chunks": pa.concat_tables([ARROW.slice(0, 1), ARROW.slice(1)]),
    "a dictionary column": ARROW.set_column(2, "colour", ARROW["colour"].dictionary_encode()),
    "decimals": ARROW.set_column(1, "dose", ARROW["dose"].cast(pa.decimal128(21, 2))),
    "chunked arrays by name": {name: ARROW[name] for name in ARROW.column_names},
    "series by name": {name: FRAME[name] for name in FRAME},
    "dicts": FRAME.to_dict("records"),
    "records": FRAME.to_records(index=False),
    "rows in order": FRAME.to_numpy().tolist(),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers(name: str) -> None:
    found = TABLE.read(CONTAINERS[name])
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found[:, [0, 1, 2, 3]], EXPECTED)


def test_a_row_of_pandas() -> None:
    """As a frame's iloc gives it, its cells by name."""
    for place in range(3):
        found = TABLE.read(FRAME[["colour", "dose", "age"]].iloc[place])
        np.testing.assert_array_equal(found, EXPECTED[place : place + 1])


def test_what_is_no_number_is_told() -> None:
    with pytest.raises(InputError, match=r"row 0 of x: dose is '1,5', not a number"):
        TABLE.read(FRAME.assign(dose="1,5"))
    with pytest.raises(InputError, match=r"row 0 of x: dose is Timestamp.*, not a number"):
        TABLE.read(FRAME.assign(dose=pd.Timestamp("2024-01-31")))
    with pytest.raises(InputError, match="row 1 of x: dose is missing, but no row lacked it"):
        TABLE.read(FRAME.assign(dose=pd.array([1, None, 3], dtype="Int64")))
