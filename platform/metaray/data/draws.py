"""Counter-based random numbers: every draw is a pure function of (seed, split, index)."""

from typing import Any, Literal

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

Split = Literal["meta-train", "meta-val", "meta-test"]
SPLITS: tuple[Split, ...] = ("meta-train", "meta-val", "meta-test")


SPARSE = 64
"""Ratio of population to sample from which on numbers are drawn one by one; smaller populations are shuffled."""
FEW = 64
"""So few words are sorted in no time."""


class Draws:
    """The random numbers of one episode, a pure function of (seed, split, index).

    The generator is Philox 4x64 keyed by (seed, index), with the split in the counter's top word (Salmon et al.,
    "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Only numpy's raw 64-bit stream is used, which numpy
    guarantees to stay the same, unlike its distributions; so episodes are the same for all versions of numpy.

    Args:
        seed: Seed of the sequence of episodes, 0 .. 2**64 - 1.
        split: Meta-split that the episode belongs to.
        index: Index of the episode in that split, 0 .. 2**64 - 1.
    """

    def __init__(self, seed: int, split: Split, index: int) -> None:
        self._bits = philox(seed, split, index)

    def raw(self, count: int) -> NDArray[np.uint64]:
        """The next `count` raw 64-bit words."""
        return np.asarray(self._bits.random_raw(count), dtype=np.uint64)

    def uniform(self, count: int) -> NDArray[np.float64]:
        """The next `count` numbers, uniform in [0, 1) and multiples of 2**-53."""
        return in_unit_interval(self.raw(count))

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included; if they are equal, nothing is drawn."""
        return low if low == high else low + int(self.uniform(1)[0] * (high - low + 1))

    def choose(self, populations: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        """Draw an ordered sample of `k` distinct integers below `populations[r]` for each row r; see `ordered_samples`.

        Args:
            populations: Population sizes [rows], each at least `k`.
            k: Sample size.

        Returns:
            Samples [rows, k], without repetition in a row.
        """
        rows = len(populations)
        uniforms = self.uniform(rows * k).reshape(k, rows)
        return ordered_samples(populations, uniforms, self.raw(rows * k).reshape(rows, k))

    def choose_each(self, populations: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Draw samples as `choose` does, with a sample size for each row.

        Args:
            populations: Population sizes [rows].
            sizes: Sample sizes [rows], none above its population.

        Returns:
            An ordered sample [sizes[r]] for each row r.
        """
        return [self._ordered(int(n), int(k)) for n, k in zip(populations, sizes, strict=True)]

    def _ordered(self, population: int, k: int) -> NDArray[np.int64]:
        assert k <= population, (population, k)
        if population > SPARSE * k:
            return self.choose(np.array([population]), k).reshape(-1)
        return shuffled(self.raw(population))[:k]


def philox(seed: int, split: Split, index: int) -> np.random.Philox:
    """The random generator of one episode, at the beginning of its stream."""
    counter = np.array([0, 0, 0, SPLITS.index(split)], dtype=np.uint64)
    # numpy takes any ISeedSequence; its types name one of them alone.
    return np.random.Philox(_Key(seed, index), counter=counter)  # type: ignore[arg-type]


class _Key(ISeedSequence):
    """A key as it is. Beside one that is given as such, numpy asks the system for entropy: four times as dear."""

    def __init__(self, seed: int, index: int) -> None:
        self._words = np.array([seed, index], dtype=np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> Any:
        assert (n_words, dtype) == (2, np.uint64), (n_words, dtype)
        return self._words


def in_unit_interval(raw: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Raw words as numbers in [0, 1), multiples of 2**-53; the shape is that of `raw`."""
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def shuffled(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """What `argsort(kind="stable")` gives of random words [n], of many in a third of the time."""
    order: NDArray[np.int64]
    if len(words) > FEW:
        order = words.argsort()
        ascending = words[order]
        if not (ascending[1:] == ascending[:-1]).any():
            return order  # Only of words that are equal, one pair in 2**64, must the first come first.
    order = words.argsort(kind="stable")
    return order


def ordered_samples(
    populations: NDArray[np.int64], uniforms: NDArray[np.float64], keys: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """Draw an ordered sample of k distinct integers below `populations[r]` for each row r.

    Floyd's algorithm (Bentley and Floyd, CACM 30(9), 1987) gives a uniform set in k draws, vectorised over the rows; a
    random permutation then makes the order uniform too.

    Args:
        populations: [rows], each at least k.
        uniforms: [k, rows] in [0, 1); what Floyd's algorithm draws from.
        keys: [rows, k] words, whose order is the permutation.

    Returns:
        [rows, k] distinct within a row.
    """
    k, rows = uniforms.shape
    assert (populations >= k).all(), (populations, k)
    last = populations - k + np.arange(k)[:, None]
    chosen = (uniforms * (last + 1)).astype(np.int64)
    for j in range(1, k):
        taken = np.logical_or.reduce(chosen[:j] == chosen[j])
        np.copyto(chosen[j], last[j], where=taken)
    order = keys.argsort(axis=1, kind="stable")
    found: NDArray[np.int64] = chosen[order, np.arange(rows)[:, None]]
    return found
