"""What meta-train says of the items that the rows of many groups share, fitted to a raw table."""

from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from metaray.config import replace
from metaray.data.preprocessing import ItemColumn, ItemRows
from metaray.data.tables.grouping import Grouping, in_order
from metaray.data.tables.raw_table import RawTable, texts
from metaray.errors import InputError

MOST_ITEMS = 2_000_000
MOST_SHRINKAGE = 1e9
"""Where nothing but chance tells items apart."""


class FittedItems(NamedTuple):
    """Items of a table.

    Attributes:
        column: What meta-train says of them.
        rows: What is known of the items of the raw rows; of those of meta-train without their own group.
    """

    column: ItemColumn
    rows: ItemRows

    def of(self, rows: slice) -> ItemRows:
        """What is known of some raw rows."""
        return ItemRows(self.rows.codes[rows], self.rows.sums[rows], self.rows.counts[rows])


def fitted_items(table: RawTable, name: str, grouping: Grouping, of_train: NDArray[np.bool_]) -> FittedItems:
    """Read the column of items, and count and sum the targets of each.

    Args:
        table: Table in long form.
        name: Name of the column of items.
        grouping: Grouping of the table's rows.
        of_train: [raw rows] whether each has a target and is of meta-train.

    Raises:
        InputError: More items than a file describes, or none in meta-train.
    """
    assert grouping.group_of is not None
    names, codes = _read(table, name)
    y, used = np.nan_to_num(grouping.y[:, 0]), of_train & (codes >= 0)
    if not used.any():
        raise InputError(f"{table.path}: --item: {name!r} is empty in all rows of meta-train")
    # Numbered anew, in order, without those that meta-train has not.
    known = np.flatnonzero(np.bincount(codes[used], minlength=len(names)))
    known = known[in_order(names[known])]
    renumbered = np.zeros(len(names) + 1, dtype=np.int64)
    renumbered[known] = np.arange(1, len(known) + 1)
    codes = renumbered[codes]  # the place of -1 is the last one
    sums, counts = _totals(codes[used], y[used], len(known) + 1)
    global_mean = float(y[of_train].mean())
    column = ItemColumn(
        name=name,
        items=tuple(names[known].tolist()),
        sums=tuple(sums[1:].tolist()),
        counts=tuple(counts[1:].tolist()),
        global_mean=global_mean,
        shrinkage=shrinkage(y[used], codes[used]),
        offset_shrinkage=0.0,
    )
    rows = ItemRows(codes, sums[codes], counts[codes])
    pairs = np.unique(grouping.group_of[used] * (len(known) + 1) + codes[used], return_inverse=True)[1].reshape(-1)
    own_sums, own_counts = _totals(pairs, y[used], int(pairs.max()) + 1)
    rows.counts[used] -= own_counts[pairs]
    rows.sums[used] = np.where(rows.counts[used] > 0, rows.sums[used] - own_sums[pairs], 0.0)
    means, logs = column.means(rows)[of_train], np.log1p(rows.counts[of_train])
    column = replace(
        column,
        offset_shrinkage=shrinkage(y[of_train] - means, grouping.group_of[of_train]),
        mean_of_means=float(means.mean()),
        std_of_means=_spread(means),
        mean_of_logs=float(logs.mean()),
        std_of_logs=_spread(logs),
    )
    return FittedItems(column, rows)


def shrinkage(values: NDArray[np.float64], codes: NDArray[np.int64]) -> float:
    """The variance within a class over that between classes, by the method of moments for unequal sizes.

    It is what the overall mean counts for beside n values of a class, if the mean of the class is to be told best.
    """
    sums, counts = _totals(codes, values, int(codes.max()) + 1)
    counts = counts[counts > 0]
    total, classes = len(values), len(counts)
    if total == classes or classes == 1:
        return MOST_SHRINKAGE
    each = (sums / np.maximum(np.bincount(codes), 1))[codes]
    within = float(((values - each) ** 2).sum()) / (total - classes)
    apart = float(((each - values.mean()) ** 2).sum()) - (classes - 1) * within
    between = apart / (total - float((counts.astype(np.float64) ** 2).sum()) / total)
    return min(within / between, MOST_SHRINKAGE) if between > 0 else MOST_SHRINKAGE


def _totals(
    codes: NDArray[np.int64], values: NDArray[np.float64], size: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The sum and the number of the values of each code."""
    return np.bincount(codes, values, size).astype(np.float64), np.bincount(codes, minlength=size).astype(np.int64)


def _spread(values: NDArray[np.float64]) -> float:
    found = float(values.std())
    return found if found > 1e-12 else 1.0


def _read(table: RawTable, name: str) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """The names of all items, and the place of each raw row's among them, -1 where there is none."""
    place_of: dict[str, int] = {}
    parts = []
    for batch in table.batches([name]):
        coded = pc.dictionary_encode(texts(batch.columns[name]))
        places = [place_of.setdefault(one, len(place_of)) for one in coded.dictionary.to_pylist()]
        if len(place_of) > MOST_ITEMS:
            raise InputError(f"{table.path}: --item: {name!r} has more than {MOST_ITEMS:,} items, which are too many")
        found = np.asarray(pc.fill_null(coded.indices, len(places)))
        parts.append(np.array([*places, -1], dtype=np.int64)[found])
    return np.array(list(place_of)), np.concatenate(parts)
