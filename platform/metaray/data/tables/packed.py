"""Rows of which many numbers are small whole ones, which a file holds in a byte each instead of four."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaray.data.preprocessing import TablePreprocessing

Ranges = tuple[tuple[int, int], ...]
"""Places from the first up to, and without, the last."""


class PackedRows:
    """The compact form of rows, put together as they are asked for; it is indexed as an array [rows, columns] is.

    Bytes hold the numbers as the raw table has them; they are standardised as the preprocessing says when they are
    read, so that it makes no difference how a file keeps them. Where all are bytes, and none is to be standardised,
    what is read are bytes, which become floats on the device; else float32.

    Args:
        wide: [rows, W] float32, the other places in their order.
        small: [rows, S] bytes.
        ranges: The places of the bytes.
        preprocessing: Preprocessing of all places.
    """

    def __init__(
        self,
        wide: NDArray[np.float32],
        small: NDArray[np.uint8],
        ranges: Ranges,
        preprocessing: TablePreprocessing,
    ) -> None:
        self._wide, self._small = wide, small
        self.shape = (len(small), wide.shape[1] + small.shape[1])
        self._is_small = places_of(ranges, self.shape[1])
        mean, std = scales(preprocessing)
        self._mean, self._std = mean[self._is_small], std[self._is_small]
        self._is_raw = bool((self._mean == 0).all() and (self._std == 1).all())

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers that are read."""
        return np.dtype(np.uint8 if self._is_raw and self._is_small.all() else np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        """Some rows, or numbers of some rows; keys are those of numpy."""
        if isinstance(key, tuple):
            rows, place = key
            if isinstance(place, int | np.integer):
                return self._column(rows, int(place) % self.shape[1])
            return self[rows][..., place]
        small = self._small[key]
        if self._is_small.all():
            return np.array(small) if self._is_raw else self._standardised(small, slice(None))
        found = np.empty((*small.shape[:-1], self.shape[1]), dtype=np.float32)
        found[..., self._is_small] = self._standardised(small, slice(None))
        found[..., ~self._is_small] = self._wide[key]
        return found

    def _column(self, rows: Any, place: int) -> Any:
        before = int(self._is_small[:place].sum())
        if not self._is_small[place]:
            return self._wide[rows, place - before]
        return self._standardised(self._small[rows, before], before)

    def _standardised(self, small: Any, places: Any) -> Any:
        if self._is_raw:
            return small.astype(np.float32)
        return ((small - self._mean[places]) / self._std[places]).astype(np.float32)


def scales(preprocessing: TablePreprocessing) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What is subtracted from the raw numbers of each place, [columns], and what they are then divided by."""
    pairs = [(one.mean, one.std) for one in preprocessing.numbers]
    pairs += [(0.0, 1.0)] * (len(preprocessing.flagged) + len(preprocessing.categories))
    pairs += [(0.0, 1.0)] * sum(len(one.labels) for one in preprocessing.labels)
    for one in preprocessing.vectors:
        pairs += [(one.mean, one.std)] * one.size
    pairs += [(0.0, 1.0)] * (preprocessing.feature_shape[0] - len(pairs))  # of an item, which is never packed
    mean, std = np.array(pairs, dtype=np.float64).T
    return mean, std


def places_of(ranges: Ranges, width: int) -> NDArray[np.bool_]:
    """[columns] whether each is within the ranges."""
    found = np.zeros(width, dtype=np.bool_)
    for first, last in ranges:
        found[first:last] = True
    return found


def ranges_of(places: Sequence[bool] | NDArray[np.bool_]) -> Ranges:
    """The places that are True, as ranges."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], places, [False]]).astype(np.int8)))
    return tuple((int(first), int(last)) for first, last in edges.reshape(-1, 2))


def packing(preprocessing: TablePreprocessing, whole: set[str]) -> Ranges:
    """The places to hold in a byte each: all that can be, where that halves the file; else none.

    Args:
        preprocessing: Preprocessing of the rows.
        whole: The columns of numbers and of vectors that hold whole numbers from 0 to 255 alone.
    """
    places = [one.name in whole and not one.missing and not one.quantiles for one in preprocessing.numbers]
    places += [True] * len(preprocessing.flagged)
    places += [one.size <= 256 for one in preprocessing.categories]
    places += [True] * sum(len(one.labels) for one in preprocessing.labels)
    for one in preprocessing.vectors:
        places += [one.name in whole] * one.size
    places += [False] * (preprocessing.feature_shape[0] - len(places))
    size, packed = 4 * len(places), 4 * len(places) - 3 * sum(places)
    return ranges_of(places) if 2 * packed <= size else ()
