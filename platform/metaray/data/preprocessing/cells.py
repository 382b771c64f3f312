"""What the cells of tables hold: those of a CSV file are texts, those of a data frame anything."""

import math

from metaray.errors import InputError


def number(cell: object, column: str, where: str) -> float:
    """The number in a cell.

    Raises:
        InputError: naming `where` it is, if it is none or not finite.
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
    """The text in a cell.

    Raises:
        InputError: naming `where` it is, if it is none, or blank.
    """
    if not isinstance(cell, str):
        raise InputError(f"{where}: {column} is {cell!r}, not a text")
    if not cell.strip():
        raise InputError(f"{where}: {column} is empty")
    return cell
