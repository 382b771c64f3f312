"""Copies of examples of a class store, class by class, turned where rotations are classes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaray.data.ragged import Compact, Ragged, gather
from metaray.data.store_columns import Examples

QUARTER_TURNS, HALF = 4, 2
WORD = 8
TURNED_BYTES = 2**20
"""Number of bytes that are turned at a time, so that they stay in a core's cache."""


def gathered(examples: Examples, *sides: tuple[NDArray[np.int64], NDArray[np.int64]]) -> tuple[Compact, ...]:
    """Copies of the examples of each side, [classes * n, *feature].

    Ragged ones are padded to one length on all sides.

    Args:
        examples: Examples of the store.
        sides: Row indices [classes, n] of each side, and the quarter turns [classes] of each class.
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
            # Made whole before it is put in place: numpy writes strided rows to scattered places one by one.
            by_class[some] = turned(by_class[some], quarters)
    return by_class.reshape(x.shape)


def turned(images: NDArray[Any], quarters: int) -> NDArray[Any]:
    """A copy of contiguous images [..., height, width], turned.

    Half a turn is each plane backwards. Of bytes eight are reversed at a time, as a number of the other byte order: six
    times as fast.
    """
    size = images.shape[-2] * images.shape[-1]
    if quarters != HALF or images.itemsize > 1 or size % WORD:
        return np.ascontiguousarray(np.rot90(images, quarters, axes=(-2, -1)))
    words = images.reshape(-1, size).view(f">u{WORD}")[:, ::-1]
    return words.astype(f"<u{WORD}").view(images.dtype).reshape(images.shape)
