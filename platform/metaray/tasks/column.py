"""Columns of the tables that tasks and predictions are handed over in."""

from typing import NamedTuple

VECTOR = "vector"
"""The type of a column whose cells are lists of numbers, which MLflow calls an array of doubles."""


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: Name of the column, as the table's first line has it.
        type: Type of the cells, in MLflow's words, or `VECTOR`.
        required: Whether it must be there.
    """

    name: str
    type: str
    required: bool = True


def numbered(name: str, count: int) -> list[str]:
    """The names of so many columns of numbers: x, or x0, x1, ..."""
    return [name] if count == 1 else [f"{name}{i}" for i in range(count)]
