"""What in a table would make its tasks easier than they look: told, never refused, since people know their columns."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from metaray.data.draws import SPLITS
from metaray.data.names import counted
from metaray.data.tables.table_file import TableFile

DETERMINES = 0.99
"""Share of the target's variance, or area under the ROC curve, from which on a column determines it."""
MOST_ROWS = 50_000
"""Rows of meta-train that are looked at; beyond these every so many are."""
FEWEST = 5
"""Rows that a group, and examples that a category, needs on average to say anything."""


def leaks(file: TableFile) -> tuple[str, ...]:
    """Sentences about columns that determine the target, and rows that lie in more than one part."""
    return (*_determining(file), *_shared_rows(file))


def _determining(file: TableFile) -> Iterator[str]:
    meta = file.meta
    groups = meta.splits.get("meta-train", ())
    each = [(rows, file.targets(group, rows).astype(np.float64)) for group in groups if len(rows := file.rows(group))]
    total = sum(len(rows) for rows, _ in each)
    if not total:
        return
    step = -(-total // MOST_ROWS)
    each = [(rows[::step], y[::step]) for rows, y in each]
    rows = np.concatenate([rows for rows, _ in each])
    y = np.concatenate([y for _, y in each])
    ends = np.cumsum([len(rows) for rows, _ in each])[:-1]
    judge = _area if meta.kind == "binary" else _followed
    word = "of the area under the ROC curve" if meta.kind == "binary" else "of its variance"
    for place, column in enumerate(meta.preprocessing.numbers):
        values = file.x[rows, place].astype(np.float64)  # a column at a time: all of them may be more than memory
        whole = judge(values, y)
        inner = [judge(part, of) for part, of in zip(np.split(values, ends), np.split(y, ends), strict=True)]
        known = [one for one in inner if not np.isnan(one)]
        within = float(np.median(known)) if known else np.nan
        if whole >= DETERMINES:
            yield f"column {column.name!r} determines the target ({whole:.1%} {word}): leave it out if it is no cause"
        elif within >= DETERMINES:
            yield (
                f"column {column.name!r} determines the target within a group ({within:.1%} {word} in the median "
                "group): leave it out, or order by it, if it is no cause"
            )
    first = len(meta.preprocessing.numbers) + len(meta.preprocessing.flagged)
    for place, one in enumerate(meta.preprocessing.categories, first):
        if _explained(file.x[rows, place].astype(np.int64), y) >= DETERMINES:
            yield f"column {one.name!r} determines the target: leave it out if it is no cause"


def _followed(values: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """How well the target follows the column, whatever their relation: 1 where it is a function of it, 0 by chance.

    Of rows in the column's order, neighbours' targets are compared (von Neumann, 1941):
    1 - E(y[i] - y[i+1])^2 / (2 Var y).
    """
    if len(values) < FEWEST or values.std() < 1e-9 or y.std() < 1e-9:
        return np.nan
    # Rows of the same value in no order: they may lie in that of time.
    shuffled = np.random.default_rng(0).permutation(len(values))
    order = shuffled[np.argsort(values[shuffled], kind="stable")]
    return float(1 - (np.diff(y[order]) ** 2).mean() / (2 * y.var()))


def _area(values: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Area under the ROC curve, 0.5 .. 1 whichever way round; NaN where there are few of a class."""
    positives = int((y == 1).sum())
    negatives = len(y) - positives
    if min(positives, negatives) < FEWEST:
        return np.nan
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    area = (ranks[y == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives)
    return float(max(area, 1 - area))


def _explained(codes: NDArray[np.int64], y: NDArray[np.float64]) -> float:
    """The share of the target's variance between categories, where there are enough rows of each to tell."""
    _, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    if len(counts) < 2 or len(y) < FEWEST * len(counts) or y.std() < 1e-9:
        return np.nan
    means = np.bincount(inverse, y) / counts
    return float(1 - ((y - means[inverse]) ** 2).mean() / y.var())


def _shared_rows(file: TableFile) -> Iterator[str]:
    """Rows with the same inputs and target in two parts; in wide form, and of items, they share inputs on purpose."""
    meta = file.meta
    if meta.wide or meta.preprocessing.item is not None:
        return
    generator = np.random.default_rng(0)
    odd = generator.integers(0, 2**63, file.x.shape[1] + 1, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    found = {}
    for split in SPLITS:
        groups = meta.splits.get(split, ())
        digests = [_digests(file, group, odd) for group in groups]
        found[split] = np.unique(np.concatenate(digests)) if digests else np.empty(0, dtype=np.uint64)
    for i, split in enumerate(SPLITS):
        for other in SPLITS[i + 1 :]:
            if shared := len(np.intersect1d(found[split], found[other])):
                yield f"{counted(shared, 'row')} of {other} (inputs and target) also occur in {split}"


def _digests(file: TableFile, group: int, odd: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A number a row, the same for the same row."""
    rows = file.rows(group)
    whole = np.column_stack([file.x[rows], file.targets(group, rows)]) + np.float32(0)  # no -0
    words = whole.view(np.uint32).astype(np.uint64)
    mixed = (words ^ (words << np.uint64(29))) * odd
    mixed ^= mixed >> np.uint64(31)
    return np.asarray((mixed * odd[::-1]).sum(axis=1, dtype=np.uint64))
