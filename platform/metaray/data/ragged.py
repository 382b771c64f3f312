"""Examples of unequal length: token sequences [n_i], point sets [n_i, d]; how they are kept, gathered and padded.

Kept, they lie one after the other: `Ragged`. Gathered, they are padded with zeros to one of the lengths of `LADDER`, so
that a run meets few shapes: 8, 16, 24, 32, 48, 64, 96, 128, ..., each 4/3 or 3/2 times the last. An example of more
than `LONGEST` is refused where it is read or written, and so is one of none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from metaray.errors import InputError

FeatureShape = tuple[Any, ...]
"""Shape of one example, as integers; the first axis is None if examples are ragged."""
Compact = Any
"""Examples as a source holds them: an array [n, *feature], or a dict if they are ragged.

The dict holds padded `VALUES` [n, L, ...] and `LENGTHS` [n]. The type is no union, so that code for arrays alone may
say so.
"""

VALUES, LENGTHS = "values", "lengths"
LADDER = (8, *sorted(base * 2**k for base, steps in ((16, 13), (24, 12)) for k in range(steps)))
LONGEST = LADDER[-1]


@dataclass(frozen=True)
class Ragged:
    """Examples of unequal length, stored one after the other.

    Attributes:
        values: Values of all examples, [total, *rest].
        offsets: Offsets of the examples, [examples + 1] int64; example i is values[offsets[i] : offsets[i + 1]].
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, place: int) -> NDArray[Any]:
        """One example, a view."""
        found: NDArray[Any] = self.values[self.offsets[place] : self.offsets[place + 1]]
        return found

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Length of each example, [examples]."""
        return np.diff(self.offsets)

    def padded(self, rows: NDArray[np.int64], length: int) -> dict[str, NDArray[Any]]:
        """A copy of some examples, with zeros up to `length`: `VALUES` [n, length, *rest] and `LENGTHS` [n]."""
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        out = np.zeros((len(rows), length, *self.values.shape[1:]), self.values.dtype)
        for place, row in enumerate(rows):
            out[place, : lengths[place]] = self[row]
        return {VALUES: out, LENGTHS: lengths}


def is_ragged(shape: FeatureShape) -> bool:
    """Whether examples of this shape are of unequal length."""
    return bool(shape) and shape[0] is None


def fixed_shape(shape: FeatureShape, what: str) -> tuple[int, ...]:
    """The shape of one example, if all examples have the same.

    Raises:
        InputError: If examples are ragged; the message says that `what` does not take such.
    """
    if not _is_fixed(shape):
        raise InputError(f"{what} takes examples of one shape, not ragged ones of shape {shape_text(shape)}")
    return shape


def _is_fixed(shape: FeatureShape) -> TypeGuard[tuple[int, ...]]:
    return None not in shape


def shape_text(shape: FeatureShape) -> str:
    """A shape in words, for messages, with "any" for the axis that differs."""
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"


def padded_length(longest: int) -> int:
    """The shortest length of `LADDER` that takes examples of up to `longest`."""
    found: int = next(length for length in LADDER if length >= longest)
    return found


def joined(rows: Sequence[NDArray[Any]], where: str) -> Ragged:
    """Examples that come one by one.

    Raises:
        InputError: If an example is empty or longer than any of `LADDER`, or unlike the first; the message names where
            it is.
    """
    for place, row in enumerate(rows):
        if row.shape[1:] != rows[0].shape[1:]:
            raise InputError(f"{where} {place} has the shape {list(row.shape)}, the first {list(rows[0].shape)}")
    found = Ragged(np.concatenate(rows), np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64))
    check_lengths(found.offsets, where)
    return found


def check_lengths(offsets: NDArray[np.int64], where: str) -> None:
    """Refuse examples that are empty, or longer than any of `LADDER`.

    Raises:
        InputError: If there are such; the message names the first.
    """
    lengths = np.diff(offsets)
    bad = np.flatnonzero((lengths < 1) | (lengths > LONGEST))
    if len(bad):
        told = "is empty" if lengths[bad[0]] < 1 else f"has the length {lengths[bad[0]]}, at most {LONGEST}"
        raise InputError(f"{where} {bad[0]} {told}")


def gather(
    examples: NDArray[Any] | Ragged, *sides: NDArray[np.int64], length: int | None = None
) -> tuple[Compact, ...]:
    """Copies of the examples at some rows, compact, for each of several sides.

    Ragged ones are padded to the same length on all sides, so that an algorithm can put support and query together.

    Args:
        examples: Examples of a store.
        sides: Rows [n] of each.
        length: Length that ragged ones are padded to, one of `LADDER`; None takes the shortest that will do.
    """
    if isinstance(examples, Ragged):
        longest = max(int((examples.offsets[rows + 1] - examples.offsets[rows]).max()) for rows in sides)
        return tuple(examples.padded(rows, length or padded_length(longest)) for rows in sides)
    found: list[Compact] = []
    for rows in sides:
        out = np.empty((*rows.shape, *examples.shape[1:]), examples.dtype)
        # The rows are in range by construction; numpy's default mode would buffer the output to check them.
        np.take(examples, rows, axis=0, out=out, mode="clip")
        found.append(out)
    return tuple(found)


def unpadded(compact: Compact) -> Any:
    """The inverse of `gather`, of all rows."""
    if not isinstance(compact, dict):
        return compact
    rows = [values[:length] for values, length in zip(compact[VALUES], compact[LENGTHS], strict=True)]
    return joined(rows, "example")


def lengthened(compact: Compact, length: int) -> Compact:
    """Ragged examples padded further, to `length`; others as they are."""
    if not isinstance(compact, dict):
        return compact
    values = compact[VALUES]
    more = np.zeros((len(values), length - values.shape[1], *values.shape[2:]), values.dtype)
    return {VALUES: np.concatenate([values, more], axis=1), LENGTHS: compact[LENGTHS]}
