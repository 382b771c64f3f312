"""Rows of a table as users hold them, as columns by name: data frames, Arrow tables, dicts, arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metaray.containers import described, opened
from metaray.errors import InputError

MISSING = frozenset({"", "NA", "N/A", "NaN", "nan", "null"})
"""Texts that mean a missing number in a column of numbers; in a column of categories only empty text does."""


def is_missing(cell: object, *, of_numbers: bool) -> bool:
    """Whether a cell holds nothing: None, NaN, what pandas and Arrow have for that, or a text that says so."""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(cell, str):
        text = cell.strip()
        return text in MISSING if of_numbers else not text
    return isinstance(cell, float | np.floating) and bool(np.isnan(cell))


def category_text(cell: object) -> str:
    """A category as text, the same whether it was text, a whole number, or a float of that value."""
    if isinstance(cell, str):
        return cell.strip()
    if isinstance(cell, bool | np.bool_):
        return "true" if cell else "false"
    if isinstance(cell, float | np.floating) and float(cell).is_integer():
        return str(int(cell))
    return str(cell)


def code_of(cell: object, known: Mapping[str, int]) -> int:
    """The code of a category among the known ones; 0 for missing or unknown ones.

    A CSV file has 3.0 where whole numbers were beside empty cells; data frames then hold a number, and no text.
    """
    if is_missing(cell, of_numbers=False):
        return 0
    found = known.get(category_text(cell))
    if found is None and isinstance(cell, int | float | np.integer | np.floating) and float(cell).is_integer():
        found = known.get(f"{int(cell)}.0")
    return found or 0


def columns_of(x: Any, names: Sequence[str]) -> dict[str, list[Any]]:
    """The cells of the columns `names`, by name; further columns are ignored.

    Args:
        x: A data frame, an Arrow table, a dict of columns, a list of dicts, or of rows in the order of `names`; or one
            row as a dict or a sequence.
        names: Names of the columns.

    Raises:
        InputError: If a column is missing or occurs twice, rows differ in length, or there are no rows.
    """
    found = _by_column(x, names)
    if found is None:
        rows = _rows(x, len(names))
        if rows and isinstance(rows[0], Mapping):
            found = {name: [_cell(row, name, i) for i, row in enumerate(rows)] for name in names}
        else:
            found = _transposed(rows, names)
    lengths = {name: len(cells) for name, cells in found.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"the columns of x differ in length: {lengths}")
    if not min(lengths.values()):
        raise InputError("no rows given")
    return found


def rows_of_vectors(x: Any, name: str, size: int) -> Any:
    """Wrap an array or list of vectors as the only column of a table.

    Args:
        x: Rows, or vectors [n, size], or a single vector [size].
        name: Name of the column.
        size: Length of a vector.

    Returns:
        A dict with the column; anything that is not an array of vectors is returned unchanged.
    """
    if isinstance(x, Mapping) or hasattr(x, "columns") or hasattr(x, "schema"):
        return x
    try:
        found = np.asarray(opened(x, "x"), dtype=np.float64)
    except (TypeError, ValueError):  # dicts, texts, rows of cells
        return x
    if found.ndim == 2:
        return {name: list(found)}
    return {name: [found]} if found.ndim == 1 and len(found) == size > 1 else x


def _by_column(x: Any, names: Sequence[str]) -> dict[str, list[Any]] | None:
    """The cells of what holds its columns by name; None of anything else."""
    if hasattr(x, "schema") and hasattr(x, "to_pydict"):  # a table or record batch of Arrow
        _require(list(x.schema.names), names)
        return {name: x.column(name).to_pylist() for name in names}
    if hasattr(x, "columns") and hasattr(x, "dtypes"):  # a data frame of pandas or polars
        _require([str(name) for name in x.columns], names)
        return {name: x[name].tolist() if hasattr(x[name], "tolist") else x[name].to_list() for name in names}
    if hasattr(x, "index") and hasattr(x, "to_dict") and set(names) <= set(map(str, x.index)):  # a row of pandas
        return {name: [x[name]] for name in names}
    if isinstance(x, np.ndarray) and x.dtype.names:
        _require(list(x.dtype.names), names)
        return {name: np.atleast_1d(x[name]).tolist() for name in names}
    if isinstance(x, Mapping):
        _require(list(x), names)
        cells = {name: opened(x[name], f"column {name!r}") for name in names}
        return {name: list(one) if isinstance(one, list | np.ndarray) else [one] for name, one in cells.items()}
    return None


def _require(present: list[str], names: Sequence[str]) -> None:
    for name in names:
        if (times := present.count(name)) != 1:
            lacks = f"has the column {name!r} {times} times" if times else f"lacks the column {name!r}"
            listed = ", ".join(map(str, present[:12])) + (", ..." if len(present) > 12 else "")
            raise InputError(f"x {lacks}; it has {listed}")


def _rows(x: Any, width: int) -> list[Any]:
    given = opened(x, "x")
    if isinstance(given, np.ndarray):
        if given.ndim == 1 and given.dtype != object and len(given) == width and width > 1:
            return [given]
        return list(given) if given.ndim else [given]
    if not isinstance(given, list):
        raise InputError(f"x is {described(x)}; give rows: a data frame, an Arrow table, a list of dicts, or an array")
    if (
        width > 1
        and len(given) == width
        and not any(isinstance(one, Mapping | list | tuple | np.ndarray) for one in given)
    ):
        return [given]
    return given


def _cell(row: Any, name: str, place: int) -> Any:
    if not isinstance(row, Mapping):
        raise InputError(f"row {place} of x is {described(row)}, but row 0 is a dict; give a dict each")
    if name not in row:
        raise InputError(f"row {place} of x lacks the column {name!r}; it has {', '.join(map(str, row))}")
    return row[name]


def _transposed(rows: list[Any], names: Sequence[str]) -> dict[str, list[Any]]:
    wide = []
    for place, row in enumerate(rows):
        cells = opened(row, f"row {place} of x")
        flat = list(cells) if isinstance(cells, list) or (isinstance(cells, np.ndarray) and cells.ndim) else [cells]
        if len(flat) != len(names):
            raise InputError(
                f"row {place} of x has {len(flat)} cells, but there are {len(names)} columns, in this order: "
                f"{', '.join(names)}"
            )
        wide.append(flat)
    return {name: [row[i] for row in wide] for i, name in enumerate(names)}
