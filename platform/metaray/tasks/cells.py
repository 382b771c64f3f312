"""What the cells of tables hold: those of a CSV file are texts, those of a data frame anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from metaray.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def number(cell: object, column: str, where: str) -> float:
    """Read the number in a cell.

    Raises:
        InputError: If the cell holds no finite number; the message names the place `where`.
    """
    try:
        value = float(cell)  # type: ignore[arg-type]
    except OverflowError:
        raise InputError(f"{where}: {column} is too large a number; give one below 1.8e308") from None
    except (TypeError, ValueError):
        raise InputError(f"{where}: {column} is {cell!r}, not a number") from None
    if not math.isfinite(value):
        raise InputError(f"{where}: {column} is {value:g}; give a finite number")
    return value


def text(cell: object, column: str, where: str) -> str:
    """Read the text in a cell.

    Raises:
        InputError: If the cell holds no text, or only blanks; the message names the place `where`.
    """
    if not isinstance(cell, str):
        raise InputError(f"{where}: {column} is {cell!r}, not a text")
    if not cell.strip():
        raise InputError(f"{where}: {column} is empty")
    return cell


def numbers_of(
    rows: Sequence[Sequence[object]], names: Sequence[str], where: Callable[[int], str]
) -> NDArray[np.float64]:
    """Read rows of cells as numbers [n, columns].

    Args:
        rows: The cells.
        names: Names of the columns.
        where: Function that returns the name of row i for messages.

    Raises:
        InputError: If a cell holds no finite number; the message names it.
    """
    import numpy as np

    found = [
        [number(cell, name, where(i)) for cell, name in zip(row, names, strict=True)] for i, row in enumerate(rows)
    ]
    return np.asarray(found, dtype=np.float64).reshape(len(rows), len(names))
