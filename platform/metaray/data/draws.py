"""Counter-based random numbers: every draw is a pure function of (seed, split, index)."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["meta-train", "meta-val", "meta-test"]
SPLITS: tuple[Split, ...] = ("meta-train", "meta-val", "meta-test")


SPARSE = 64
"""From populations above so many times the sample, numbers are drawn one by one; others are shuffled whole."""


class Draws:
    """The random numbers of one episode.

    Philox 4x64 keyed by (seed, index), the split in the counter's top word (Salmon et al., "Parallel random numbers:
    as easy as 1, 2, 3", SC 2011). Only the raw 64-bit stream of numpy is used: numpy guarantees that stream, and not
    what its distributions make of it, so episodes stay the same across numpy versions.

    Args:
        seed: 0 .. 2**64 - 1.
        split: which meta-split the episode belongs to.
        index: the episode's index in that split, 0 .. 2**64 - 1.
    """

    def __init__(self, seed: int, split: Split, index: int) -> None:
        key = np.array([seed, index], dtype=np.uint64)
        counter = np.array([0, 0, 0, SPLITS.index(split)], dtype=np.uint64)
        self._bits = np.random.Philox(key=key, counter=counter)

    def raw(self, count: int) -> NDArray[np.uint64]:
        """The next `count` raw 64-bit words."""
        return np.asarray(self._bits.random_raw(count), dtype=np.uint64)

    def uniform(self, count: int) -> NDArray[np.float64]:
        """`count` numbers in [0, 1), multiples of 2**-53."""
        return (self.raw(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included; where they are equal, nothing is drawn."""
        return low if low == high else low + int(self.uniform(1)[0] * (high - low + 1))

    def choose(self, populations: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        """For each row r, an ordered sample of `k` distinct integers below `populations[r]`.

        Floyd's algorithm (Bentley and Floyd, CACM 30(9), 1987) gives a uniform set in `k` draws, vectorised over the
        rows; a random permutation then makes the order uniform too.

        Args:
            populations: [rows], each at least `k`.
            k: sample size.

        Returns:
            [rows, k] distinct within a row.
        """
        rows = len(populations)
        assert (populations >= k).all(), (populations, k)
        uniforms = self.uniform(rows * k).reshape(k, rows)
        chosen = np.empty((rows, k), dtype=np.int64)
        for j in range(k):
            last = populations - k + j
            candidate = (uniforms[j] * (last + 1)).astype(np.int64)
            taken = (chosen[:, :j] == candidate[:, None]).any(axis=1)
            chosen[:, j] = np.where(taken, last, candidate)
        order = self.raw(rows * k).reshape(rows, k).argsort(axis=1, kind="stable")
        return np.take_along_axis(chosen, order, axis=1)

    def choose_each(self, populations: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """As `choose`, with a sample size for each row.

        Args:
            populations: [rows].
            sizes: [rows], none above its population.

        Returns:
            For each row r an ordered sample [sizes[r]].
        """
        return [self._ordered(int(n), int(k)) for n, k in zip(populations, sizes, strict=True)]

    def _ordered(self, population: int, k: int) -> NDArray[np.int64]:
        assert k <= population, (population, k)
        if population > SPARSE * k:
            return self.choose(np.array([population]), k).reshape(-1)
        order: NDArray[np.int64] = self.raw(population).argsort(kind="stable")
        return order[:k]
