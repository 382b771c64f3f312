"""The random numbers of many episodes side by side, so that a meta-batch is drawn in one go."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metaray.data.draws import SPARSE, Draws, Split, in_unit_interval, ordered_samples, philox, shuffled

LEAST_WORDS = 256
"""Visiting a stream costs as much as some thousand of its words: the first visit brings what most tasks draw."""


class ManyDraws:
    """The random numbers of B episodes: row b holds what `Draws(seed, split, indices[b])` gives.

    All of them draw alike, but for `choose_each`, which may draw more words of some than of others. A source whose
    episodes draw other things takes them one by one, from `each`.

    The words are numpy's own: one generator is given the key of one episode after the other. Philox's rounds in vector
    arithmetic, where a product of 128 bits takes a dozen operations, took twice as long for meta-batches of 512
    episodes, and six times for those of 4.

    Args:
        seed: Seed of the sequence of episodes, 0 .. 2**64 - 1.
        split: Meta-split that the episodes belong to.
        indices: Indices [B] of the episodes, each 0 .. 2**64 - 1.
    """

    def __init__(self, seed: int, split: Split, indices: Sequence[int]) -> None:
        self._seed, self._split, self._indices = seed, split, indices
        self._words = np.empty((len(indices), 0), dtype=np.uint64)
        self._taken: int | NDArray[np.int64] = 0  # a number for all, until they differ

    def __len__(self) -> int:
        return len(self._indices)

    def each(self) -> list[Draws]:
        """The draws of each single episode, at the current position of its stream."""
        found = [Draws(self._seed, self._split, index) for index in self._indices]
        for draws, taken in zip(found, self._starts(), strict=True):
            draws.raw(taken)
        return found

    def raw(self, count: int) -> NDArray[np.uint64]:
        """[B, count] the next raw 64-bit words of each."""
        start, self._taken = self._taken, self._taken + count
        if isinstance(start, int):
            self._provide(start + count)
            return self._words[:, start : start + count]
        self._provide(int(start.max()) + count)
        return np.take_along_axis(self._words, start[:, None] + np.arange(count), axis=1)

    def uniform(self, count: int) -> NDArray[np.float64]:
        """[B, count] numbers in [0, 1), multiples of 2**-53."""
        return in_unit_interval(self.raw(count))

    def between(self, low: int, high: int) -> NDArray[np.int64]:
        """Whole numbers [B] from `low` to `high`, both included; if they are equal, nothing is drawn."""
        if low == high:
            return np.full(len(self), low, dtype=np.int64)
        return low + (self.uniform(1)[:, 0] * (high - low + 1)).astype(np.int64)

    def choose(self, populations: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        """Samples as `Draws.choose` draws them, for each episode.

        Args:
            populations: Population sizes [B, rows], each at least `k`.
            k: Sample size.

        Returns:
            Samples [B, rows, k], without repetition along the last axis.
        """
        rows = populations.shape[1]
        words = self.raw(2 * rows * k)
        uniforms = in_unit_interval(words[:, : rows * k]).reshape(-1, k, rows).swapaxes(0, 1).reshape(k, -1)
        keys = words[:, rows * k :].reshape(-1, k)
        return ordered_samples(populations.reshape(-1), uniforms, keys).reshape(-1, rows, k)

    def choose_each(self, populations: NDArray[np.int64], k: int | None) -> NDArray[np.int64]:
        """Samples as `Draws.choose_each` draws them, for each episode, with one sample size.

        Args:
            populations: Population sizes [B, rows], each at least `k`.
            k: Sample size; None takes all of each population.

        Returns:
            Samples [B, rows, k], without repetition along the last axis. If `k` is None, its place takes the largest
            population, and elements beyond a row's own population are meaningless.
        """
        most = int(populations.max()) if k is None else k
        found = np.empty((*populations.shape, most), dtype=np.int64)
        for row, column in enumerate(populations.T):
            self._sample(column, k, found[:, row])
        return found

    def _sample(self, populations: NDArray[np.int64], k: int | None, out: NDArray[np.int64]) -> None:
        """Write ordered samples of populations [B] to `out`, [B, k]."""
        sparse = populations > (populations if k is None else SPARSE * k)
        words = np.where(sparse, 2 * out.shape[1], populations)
        starts = np.array(self._starts())
        ends = starts + words
        self._provide(int(ends.max()))
        alike = isinstance(self._taken, int) and words.min() == words.max()
        self._taken = int(ends[0]) if alike else ends
        if sparse.any():
            self._sparse(np.flatnonzero(sparse), starts, populations, out)
        for place in np.flatnonzero(~sparse).tolist():
            order = shuffled(self._words[place, starts[place] : ends[place]])
            out[place, : len(order)] = order[: out.shape[1]]

    def _sparse(
        self,
        places: NDArray[np.int64],
        starts: NDArray[np.int64],
        populations: NDArray[np.int64],
        out: NDArray[np.int64],
    ) -> None:
        """The same at some places, where numbers are drawn one by one."""
        k = out.shape[1]
        words = self._words[places[:, None], starts[places, None] + np.arange(2 * k)]
        out[places] = ordered_samples(populations[places], in_unit_interval(words[:, :k]).T, words[:, k:])

    def _starts(self) -> list[int]:
        """[B] how many words each has drawn."""
        taken = self._taken
        return [taken] * len(self) if isinstance(taken, int) else taken.tolist()

    def _provide(self, count: int) -> None:
        """Have the first `count` words of each stream, or more."""
        if count > self._words.shape[1]:
            self._read(max(count, 2 * self._words.shape[1], LEAST_WORDS))

    def _read(self, count: int) -> None:
        """The first `count` words of each stream."""
        self._words = np.empty((len(self), count), dtype=np.uint64)
        generator = philox(self._seed, self._split, 0)
        state = generator.state
        for row, index in zip(self._words, self._indices, strict=True):
            state["state"]["key"][1] = index
            generator.state = state
            row[:] = generator.random_raw(count)
