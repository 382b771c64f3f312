"""Columns of raw tables whose cells are lists of numbers: embeddings and fingerprints, as Parquet files have them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from metaray.errors import InputError

MOST_NUMBERS = 2**20
"""Numbers of a vector, at most."""
MOST_BYTE = 255


def is_vectors(kind: Any) -> bool:
    """Whether a type of Arrow is one of lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_bytes(kind: Any) -> bool:
    """Whether a type of Arrow is one of bytes that are no text."""
    each = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(one(kind) for one in each)


def holds_numbers(kind: Any) -> bool:
    """Whether the lists of a type hold numbers, or bits."""
    of = kind.value_type
    return bool(pa.types.is_integer(of) or pa.types.is_floating(of) or pa.types.is_boolean(of))


@dataclass
class Vectors:
    """What a column of lists was found to hold, batch by batch.

    Args:
        name: Name of the column.
        path: Path of the table, for messages.
    """

    name: str
    path: str
    size: int = 0
    whole: bool = True

    def see(self, column: Any, first: int) -> None:
        """Check a batch, whose first row has the number `first`.

        Raises:
            InputError: If a row's list is missing, or of another length than the first row's, or holds something else
                than finite numbers; the message names the row.
        """
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        missing = np.asarray(column.is_null())
        if not self.size and not missing[0]:
            self.size = int(lengths[0])

        def at(row: int) -> str:
            return f"{self.path}, row {first + row}: {self.name}"

        leave = f"or say --leave-out {self.name!r}"
        if missing.any():
            raise InputError(f"{at(int(missing.argmax()))} is empty, and vectors cannot be; take the row out, {leave}")
        if not 0 < self.size <= MOST_NUMBERS:
            raise InputError(f"{at(0)} has {self.size} numbers; give 1 to {MOST_NUMBERS:,}, {leave}")
        if (other := lengths != self.size).any():
            row = int(other.argmax())
            raise InputError(
                f"{at(row)} has {int(lengths[row])} numbers, but row 1 has {self.size}; give all rows as many, {leave}"
            )
        values = flat(column)
        if values.null_count or not _finite(numpy_of(values)):
            bad = np.asarray(values.is_null()) | ~np.isfinite(numpy_of(values).astype(np.float64))
            place = int(bad.argmax())
            cell = values[place].as_py()
            told = "is missing" if cell is None else f"is {cell:g}"
            raise InputError(f"{at(place // self.size)}: number {place % self.size} {told}; give finite ones, {leave}")
        self.whole = self.whole and is_whole(numpy_of(values))


@dataclass
class Scale:
    """Mean and spread of all numbers of a column of vectors, batch by batch."""

    count: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0])
    shift: float | None = None

    def see(self, values: NDArray[Any]) -> None:
        """Count numbers [n, size]; they are summed from the first on, so that a large mean costs no digits."""
        if not values.size:
            return
        if self.shift is None:
            self.shift = float(values.flat[0])
        apart = values.astype(np.float64) - self.shift
        self.count += values.size
        self.sums = [self.sums[0] + float(apart.sum()), self.sums[1] + float((apart**2).sum())]

    @property
    def mean(self) -> float:
        """Mean of all numbers."""
        return (self.shift or 0.0) + self.sums[0] / max(1, self.count)

    @property
    def std(self) -> float:
        """Standard deviation of all numbers; 1 where nothing varies."""
        first, second = (one / max(1, self.count) for one in self.sums)
        found = max(0.0, second - first**2) ** 0.5
        return found if found > 1e-12 * max(1.0, abs(self.mean)) else 1.0


def matrix(column: Any, size: int) -> NDArray[Any]:
    """[n, size] of a column that was checked, of its own type; bits are bytes."""
    return numpy_of(flat(column)).reshape(-1, size)


def flat(column: Any) -> Any:
    """The numbers of all lists, one after the other."""
    return column.flatten()


def numpy_of(values: Any) -> NDArray[Any]:
    """Numbers of Arrow; bits are bytes."""
    found: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return found.astype(np.uint8) if found.dtype == np.bool_ else found


def is_whole(values: NDArray[Any]) -> bool:
    """Whether all are whole numbers that a byte holds."""
    if values.dtype == np.uint8 or not values.size:
        return True
    if values.min() < 0 or values.max() > MOST_BYTE:
        return False
    return values.dtype.kind in "iu" or bool((values == np.floor(values)).all())


def _finite(values: NDArray[Any]) -> bool:
    return values.dtype.kind in "iub" or bool(np.isfinite(values).all())


def vector_columns(types: Iterable[tuple[str, Any]], where: str) -> frozenset[str]:
    """The names of the columns that hold vectors.

    Raises:
        InputError: If lists hold something else than numbers, or there is what is no cell of a table at all; the
            message says `where`.
    """
    found = set()
    for name, kind in types:
        if pa.types.is_nested(kind) != is_vectors(kind) or is_bytes(kind):
            raise InputError(
                f"{where}: column {name!r} holds {kind}, which is no number, no text and no list of numbers; "
                f"leave it out: --leave-out {name!r}"
            )
        if is_vectors(kind):
            if not holds_numbers(kind):
                raise InputError(
                    f"{where}: column {name!r} holds lists of {kind.value_type}, and vectors have numbers; "
                    f"leave it out: --leave-out {name!r}"
                )
            found.add(name)
    return frozenset(found)
