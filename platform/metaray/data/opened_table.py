"""An open table, and what the tasks of its groups draw from."""

from functools import lru_cache
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaray.data.draws import Draws, Split
from metaray.data.episode_spec import Sizes
from metaray.data.remote import held
from metaray.data.tables.table_file import TableFile, read_table
from metaray.data.verified import open_verified

Rows = NDArray[np.int64]

KEPT = 64
"""Number of cached lists of eligible groups, one for each size that a spec can have."""


class Pools(NamedTuple):
    """The rows of one group, from which a task draws.

    Attributes:
        group: Number of the group.
        each: All rows for regression; the negatives and the positives for binary targets. In order, if the table has
            one.
    """

    group: int
    each: tuple[Rows, ...]


class Strip(NamedTuple):
    """The pools of all groups of a split, C for each group, one after the other.

    Attributes:
        rows: Rows of all pools.
        groups: Numbers [groups] of the groups.
        starts: Offsets [groups, C] of the pools among the rows.
        counts: Number of rows [groups, C] of the pools.
        largest: Largest number of rows of a group.
    """

    rows: Rows
    groups: Rows
    starts: Rows
    counts: Rows
    largest: int


class OpenedTable:
    """An open file, with the pools of its groups."""

    def __init__(self, file: TableFile) -> None:
        self.file, meta = file, file.meta
        self.pools: dict[Split, list[Pools]] = {"meta-train": [], "meta-val": [], "meta-test": []}
        self.strips: dict[Split, Strip] = {}
        for split in self.pools:
            found = [self._pools(group) for group in meta.splits.get(split, ())]
            self.pools[split], self.strips[split] = joined(found)
        self.ordered = meta.ordered_by is not None
        self._eligible: dict[tuple[Split, Sizes], Rows] = {}

    def eligible(self, split: Split, sizes: Sizes) -> Rows:
        """Indices of the groups with enough rows among the pools of `split`; cached."""
        found = self._eligible.get((split, sizes))
        if found is None:
            found = np.flatnonzero([self._suffices(pools, sizes) for pools in self.pools[split]])
            if len(self._eligible) >= KEPT:
                self._eligible.clear()
            self._eligible[split, sizes] = found
        return found

    def drawn(self, pools: Pools, sizes: Sizes, draws: Draws) -> tuple[Rows, Rows]:
        """The rows of support and query, class by class."""
        if self.ordered and (len(pools.each) > 1 or sizes.queries is None):
            support = [rows[: sizes.shots] for rows in pools.each]
            query = self._later(pools, sizes.shots)
            if sizes.queries is not None:
                query = [rows[_some(draws, len(rows), sizes.queries)] for rows in query]
            return np.concatenate(support), np.concatenate(query)
        support, query = [], []
        for rows in pools.each:
            count = len(rows) if sizes.queries is None else sizes.shots + sizes.queries
            chosen = _some(draws, len(rows), count)
            if self.ordered:
                chosen = np.sort(chosen)
            support.append(rows[chosen[: sizes.shots]])
            query.append(rows[chosen[sizes.shots :]])
        return np.concatenate(support), np.concatenate(query)

    def count(self, pools: Pools, sizes: Sizes) -> int:
        """Number of tasks that an eligible group can give."""
        sizes_of = [len(rows) for rows in pools.each]
        if self.ordered:
            if sizes.queries is None:
                return 1
            if len(sizes_of) == 1:
                return comb(sizes_of[0], sizes.shots + sizes.queries)
            return int(
                np.prod([comb(len(rows), sizes.queries) for rows in self._later(pools, sizes.shots)], dtype=object)
            )
        each = [
            comb(n, sizes.shots) * (1 if sizes.queries is None else comb(n - sizes.shots, sizes.queries))
            for n in sizes_of
        ]
        return int(np.prod(each, dtype=object))

    def _suffices(self, pools: Pools, sizes: Sizes) -> bool:
        if min(map(len, pools.each)) < sizes.least_examples:
            return False
        if not self.ordered or len(pools.each) == 1:
            return True
        return min(map(len, self._later(pools, sizes.shots))) >= (sizes.queries or 1)

    def _later(self, pools: Pools, shots: int) -> list[Rows]:
        """The rows behind the first `shots` of each class."""
        last = max(rows[shots - 1] for rows in pools.each)
        return [rows[rows > last] for rows in pools.each]

    def _pools(self, group: int) -> Pools:
        rows = self.file.rows(group)
        if self.file.meta.kind == "regression":
            return Pools(group, (rows,))
        y = self.file.targets(group, rows)
        return Pools(group, (rows[y == 0], rows[y == 1]))


def joined(pools: list[Pools]) -> tuple[list[Pools], Strip]:
    """Concatenate pools; the returned list holds views of the concatenation."""
    counts = np.array([[len(rows) for rows in one.each] for one in pools], dtype=np.int64)
    rows = np.concatenate([np.empty(0, dtype=np.int64), *(rows for one in pools for rows in one.each)])
    ends = np.cumsum(counts).reshape(counts.shape)
    cut = iter(np.split(rows, ends.reshape(-1)))
    views = [Pools(one.group, tuple(next(cut) for _ in one.each)) for one in pools]
    groups = np.array([one.group for one in pools], dtype=np.int64)
    largest = max((sum(map(len, one.each)) for one in pools), default=0)
    return views, Strip(rows, groups, ends - counts, counts, largest)


def _some(draws: Draws, population: int, count: int) -> Rows:
    """An ordered sample of the places 0 .. population - 1."""
    return draws.choose_each(np.array([population]), np.array([count]))[0]


@lru_cache(maxsize=16)
def opened_table(path: str, _stamp: tuple[int, ...]) -> OpenedTable:
    """Open the file at a path or URI, once for each of its stamps."""
    with held(path) as local:
        return OpenedTable(open_verified(local, read_table))
