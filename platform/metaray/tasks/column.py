"""Columns of the tables that tasks and predictions are handed over in."""

from typing import NamedTuple

VECTOR = "vector"
"""The type of a column whose cells are lists of numbers, which MLflow calls an array of doubles."""


class Column(NamedTuple):
    """A column of a table of inputs, targets or predictions.

    Attributes:
        name: Name of the column in the header of the table.
        type: Type of the cells, in MLflow's words, or `VECTOR`.
        required: Whether a table must have the column.
    """

    name: str
    type: str
    required: bool = True


def numbered(name: str, count: int) -> list[str]:
    """The names of so many columns of numbers: x, or x0, x1, ..."""
    return [name] if count == 1 else [f"{name}{i}" for i in range(count)]
