"""Tables as people keep them, read by batches: CSV files and Parquet files, however large."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from metaray.data.preprocessing.table_rows import MISSING
from metaray.data.tables.notation import Decimal, cells_of, delimiter_of, with_point
from metaray.data.tables.vectors import vector_columns
from metaray.errors import InputError, unknown

BLOCK_BYTES = 2**24
PARQUET_ROWS, PARQUET_CELLS, PARQUET_BUFFER = 2**16, 2**22, 2**22
"""Rows of a batch, fewer where they are wide, and the bytes of a column that are read ahead."""


class Batch(NamedTuple):
    """Some rows.

    Attributes:
        first: The number of the first of them in the file, from 1 below the header.
        columns: Arrays of Arrow, by name.
        decimal: What their numbers have before tenths, where they are texts.
    """

    first: int
    columns: dict[str, Any]
    decimal: Decimal = "."


class RawTable:
    """A CSV or Parquet file whose columns have names.

    Args:
        path: Path of the file; what begins as Parquet files do is one, anything else is read as CSV, with commas,
            semicolons or tabs between cells.
        decimal: What numbers in a CSV file have before tenths.

    Raises:
        InputError: No such file, no header, a column without a name or one that is there twice.
    """

    def __init__(self, path: Path, decimal: Decimal = ".") -> None:
        self.path, self.delimiter, self.decimal = path, ",", decimal
        try:
            with path.open("rb") as file:
                self.is_parquet = file.read(4) == b"PAR1"
            columns = self._types()
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: is not in UTF-8 ({error}): save it as a CSV file in UTF-8") from None
        except (OSError, csv.Error, pa.ArrowException) as error:
            raise InputError(f"{path}: cannot be read as a CSV or Parquet file: {error}") from None
        self.names, self.types = [name for name, _ in columns], dict(columns)
        if not self.names:
            raise InputError(f"{path}: is empty; its first line must name the columns")
        counts = Counter(self.names)
        for name, times in counts.items():
            if not name:
                place = self.names.index(name) + 1
                raise InputError(f"{path}: column {place} of its first line has no name: {self.names[:8]}")
            if times > 1:
                raise InputError(f"{path}: has the column {name!r} {times} times; give each a name of its own")

    def require(self, names: Sequence[str], what: str) -> None:
        """Check that there are such columns.

        Raises:
            InputError: If `what` names one that there is not.
        """
        for name in names:
            if name not in self.names:
                raise InputError(f"{self.path}: {what}: {unknown('column', name, self.names)}")

    def batches(self, names: Sequence[str]) -> Iterator[Batch]:
        """All rows of some columns, in order; those of a CSV file as text.

        Raises:
            InputError: A row with more or fewer cells than the header, bytes that are no UTF-8.
        """
        first = 1
        try:
            for batch in self._batches(list(names)):
                if batch.num_rows:
                    yield Batch(first, {name: batch.column(name) for name in names}, self.decimal)
                    first += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            advice = "; save it as a CSV file in UTF-8" if "UTF8" in str(error) else ""
            raise InputError(f"{self.path}: cannot be read: {error}{advice}") from None

    def where(self, row: int) -> str:
        """The name of a row in messages."""
        return f"{self.path}, row {row}"

    def vectors_among(self, names: Sequence[str]) -> frozenset[str]:
        """Those of some columns whose cells are lists of numbers.

        Raises:
            InputError: If a column's lists hold anything else.
        """
        return vector_columns([(name, self.types[name]) for name in names], str(self.path))

    def _types(self) -> list[tuple[str, Any]]:
        """Names and types of the columns, in their order; cells of CSV files are texts."""
        if not self.is_parquet:
            return [(name, pa.string()) for name in self._header()]
        schema = pq.read_schema(self.path)
        return list(zip(schema.names, schema.types, strict=True))

    def _header(self) -> list[str]:
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline()
        self.delimiter = delimiter_of(line)
        return cells_of(line)

    def _batches(self, names: list[str]) -> Iterator[Any]:
        if self.is_parquet:
            with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=PARQUET_BUFFER) as file:
                yield from file.iter_batches(_batch_rows(file, set(names)), columns=names)
            return
        # Whole columns are judged, and not what the first block of them looks like: all as text.
        types = dict.fromkeys(self.names, pa.string())
        reader = pa_csv.open_csv(
            self.path,
            pa_csv.ReadOptions(block_size=BLOCK_BYTES, column_names=self.names, skip_rows=1),
            pa_csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
            pa_csv.ConvertOptions(column_types=types, include_columns=names, strings_can_be_null=False),
        )
        with reader:
            yield from reader


def _batch_rows(file: Any, names: set[str]) -> int:
    """How many rows of some columns to read at once."""
    described = file.metadata
    cells = 0
    for group in range(described.num_row_groups):
        columns = (described.row_group(group).column(place) for place in range(described.num_columns))
        cells += sum(int(one.num_values) for one in columns if one.path_in_schema.split(".")[0] in names)
    width = max(1, cells // max(1, int(described.num_rows)))
    return min(PARQUET_ROWS, max(1, PARQUET_CELLS // width))


def texts(column: Any) -> Any:
    """A column as trimmed texts, null where there is nothing. Whole numbers are told without a point."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    found = pc.utf8_trim_whitespace(column.cast(pa.string()))
    return pc.if_else(pc.equal(found, ""), None, found)


class Numbers(NamedTuple):
    """A column read as numbers.

    Attributes:
        values: [n], NaN where there is none.
        lacking: [n] where there is nothing at all.
        bad: [n] where there is something that is no finite number.
    """

    values: NDArray[np.float64]
    lacking: NDArray[np.bool_]
    bad: NDArray[np.bool_]


def numbers(column: Any, decimal: Decimal = ".") -> Numbers:
    """A column as numbers, as far as it holds any; texts have `decimal` before tenths."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        if column.null_count or not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            column = column.cast(pa.int8() if pa.types.is_boolean(kind) else kind).cast(pa.float64())
        values = _floats(column)
        lacking = np.isnan(values)
        return Numbers(values, lacking, np.isinf(values))
    if decimal == "." and (plain := _all_numbers(column)) is not None:
        return Numbers(np.where(np.isinf(plain), np.nan, plain), np.zeros(len(plain), np.bool_), np.isinf(plain))
    found = texts(column)
    found = pc.if_else(pc.is_in(found, value_set=pa.array(sorted(MISSING))), None, found)
    lacking = np.asarray(pc.is_null(found))
    if decimal != ".":
        found = pa.array(
            [None if text is None else with_point(text, decimal) for text in found.to_pylist()], pa.string()
        )
    try:
        values = _floats(found.cast(pa.float64()))
    except pa.ArrowInvalid:
        values = np.array([_float(text) for text in found.to_pylist()], dtype=np.float64)
    return Numbers(np.where(np.isinf(values), np.nan, values), lacking, ~lacking & ~np.isfinite(values))


def _all_numbers(column: Any) -> NDArray[np.float64] | None:
    """The numbers of a column of texts that are nothing else, which is by far the most frequent; else None."""
    if column.null_count or not pa.types.is_string(column.type):
        return None
    try:
        found = _floats(column.cast(pa.float64()))
    except pa.ArrowInvalid:
        return None
    return None if np.isnan(found).any() else found


def _floats(column: Any) -> NDArray[np.float64]:
    found: NDArray[np.float64] = column.to_numpy(zero_copy_only=False).astype(np.float64)
    return found


def _float(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return np.nan
