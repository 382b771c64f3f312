"""The random numbers of many episodes side by side, so that a meta-batch is drawn in one go."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metaray.data.draws import Draws, Split, in_unit_interval, ordered_samples, philox

LEAST_WORDS = 256
"""Visiting a stream costs as much as some thousand of its words: the first visit brings what most tasks draw."""


class ManyDraws:
    """The random numbers of B episodes: row b of whatever is drawn is what `Draws(seed, split, indices[b])` gives.

    So all of them draw alike: a source whose episodes do not takes them one by one, from `each`.

    The words are numpy's own: one generator is given the key of one episode after the other. Philox's rounds in vector
    arithmetic, where a product of 128 bits takes a dozen operations, took twice as long for meta-batches of 512
    episodes, and six times for those of 4.

    Args:
        seed: 0 .. 2**64 - 1.
        split: which meta-split the episodes belong to.
        indices: [B] of the episodes, each 0 .. 2**64 - 1.
    """

    def __init__(self, seed: int, split: Split, indices: Sequence[int]) -> None:
        self._seed, self._split, self._indices = seed, split, indices
        self._words = np.empty((len(indices), 0), dtype=np.uint64)
        self._taken = 0

    def __len__(self) -> int:
        return len(self._indices)

    def each(self) -> list[Draws]:
        """The draws of each episode alone, as far on as these."""
        found = [Draws(self._seed, self._split, index) for index in self._indices]
        for draws in found if self._taken else ():
            draws.raw(self._taken)
        return found

    def raw(self, count: int) -> NDArray[np.uint64]:
        """[B, count] the next raw 64-bit words of each."""
        start, self._taken = self._taken, self._taken + count
        if self._taken > self._words.shape[1]:
            self._read(max(self._taken, 2 * self._words.shape[1], LEAST_WORDS))
        return self._words[:, start : self._taken]

    def uniform(self, count: int) -> NDArray[np.float64]:
        """[B, count] numbers in [0, 1), multiples of 2**-53."""
        return in_unit_interval(self.raw(count))

    def between(self, low: int, high: int) -> NDArray[np.int64]:
        """[B] whole numbers from `low` to `high`, both included; where they are equal, nothing is drawn."""
        if low == high:
            return np.full(len(self), low, dtype=np.int64)
        return low + (self.uniform(1)[:, 0] * (high - low + 1)).astype(np.int64)

    def choose(self, populations: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        """As `Draws.choose` for each episode.

        Args:
            populations: [B, rows], each at least `k`.
            k: sample size.

        Returns:
            [B, rows, k] distinct along the last axis.
        """
        rows = populations.shape[1]
        words = self.raw(2 * rows * k)
        uniforms = in_unit_interval(words[:, : rows * k]).reshape(-1, k, rows).swapaxes(0, 1).reshape(k, -1)
        keys = words[:, rows * k :].reshape(-1, k)
        return ordered_samples(populations.reshape(-1), uniforms, keys).reshape(-1, rows, k)

    def _read(self, count: int) -> None:
        """The first `count` words of each stream."""
        self._words = np.empty((len(self), count), dtype=np.uint64)
        generator = philox(self._seed, self._split, 0)
        state = generator.state
        for row, index in zip(self._words, self._indices, strict=True):
            state["state"]["key"][1] = index
            generator.state = state
            row[:] = generator.random_raw(count)
