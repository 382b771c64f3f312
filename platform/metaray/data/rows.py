"""Examples of a task by their places in a store, for where the examples themselves are already.

Such inputs are a dict: `ROWS` [n] int64, and where rotations are classes `TURNS` [n] int8, the quarters by which each
example is turned.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaray.data.store_columns import Examples

DATA_ON = ("auto", "device", "host")
"""Places where examples may be kept while a worker trains."""
ROWS, TURNS = "row of the store", "quarter turns"
"""Names that no inputs of a network have, which are words of a language."""


def places(examples: Examples, *sides: tuple[NDArray[np.int64], NDArray[np.int64]]) -> tuple[dict[str, Any], ...]:
    """Rows [classes * n], in place of what `metaray.data.gathering.gathered` copies."""
    return tuple({ROWS: rows.reshape(-1)} for rows, _ in sides)


def turned_places(
    examples: Examples, *sides: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> tuple[dict[str, Any], ...]:
    """Rows, and the turn of each, in place of copies where rotations are classes."""
    return tuple(
        {**x, TURNS: turns.astype(np.int8).repeat(rows.size // len(turns))}
        for x, (rows, turns) in zip(places(examples, *sides), sides, strict=True)
    )


def are_rows(x: Any) -> bool:
    """Whether inputs are places in a store."""
    return isinstance(x, dict) and ROWS in x
