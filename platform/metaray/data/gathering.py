"""Copies of examples of a class store, class by class, turned where rotations are classes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaray.data.ragged import Compact, Ragged, gather
from metaray.data.store_columns import Examples

QUARTER_TURNS = 4
TURNED_BYTES = 2**20
"""So much is turned at a time: it stays in a core's own cache, and beside the result little is held."""


def gathered(examples: Examples, *sides: tuple[NDArray[np.int64], NDArray[np.int64]]) -> tuple[Compact, ...]:
    """Copies of the examples of each side, [classes * n, *feature]; ragged ones padded to one length on all sides.

    Args:
        examples: of the store.
        sides: rows [classes, n], and [classes] by how many quarters those of a class are turned.
    """
    found = gather(examples, *(rows.reshape(-1) for rows, _ in sides))
    if isinstance(examples, Ragged):
        return found
    return tuple(_turned(x, turns) if turns.any() else x for x, (_, turns) in zip(found, sides, strict=True))


def _turned(x: Any, turns: NDArray[np.int64]) -> NDArray[Any]:
    """Examples [classes * n, *feature], class r turned by turns[r] quarters, in place."""
    by_class: NDArray[Any] = x.reshape(len(turns), -1, *x.shape[1:])
    at_once = max(1, TURNED_BYTES // by_class[0].nbytes)
    for quarters in range(1, QUARTER_TURNS):
        classes = np.flatnonzero(turns == quarters)
        for start in range(0, len(classes), at_once):
            some = classes[start : start + at_once]
            by_class[some] = np.rot90(by_class[some], quarters, axes=(-2, -1))
    return by_class.reshape(x.shape)
