"""Which rows of a raw table belong to which group, in which order, and what their targets are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaray.data.tables.notation import comma_hint, dates_out_of_order, with_point
from metaray.data.tables.raw_table import RawTable, numbers, texts
from metaray.errors import InputError
from metaray.tasks.binary import SPELLINGS

Order = NDArray[np.float64] | NDArray[np.str_]


@dataclass(frozen=True)
class Grouping:
    """The groups of a raw table.

    Attributes:
        groups: Their names.
        counts: Rows of each.
        y: [raw rows, 1] targets, NaN where there is none; in wide form [raw rows, groups].
        rows: [rows] the raw rows that are kept, in the order of the file to write.
        order_of: [raw rows] the place of each among these; -1 of one that is left out.
        group_of: [raw rows] the number of each one's group; -1 of one that is left out. None in wide form.
    """

    groups: tuple[str, ...]
    counts: tuple[int, ...]
    y: NDArray[np.float64]
    rows: NDArray[np.int64]
    order_of: NDArray[np.int64]
    group_of: NDArray[np.int64] | None

    def of_groups(self, groups: Sequence[int]) -> NDArray[np.bool_]:
        """[raw rows] whether each has a target in one of these groups."""
        if self.group_of is None:
            return np.asarray((~np.isnan(self.y[:, list(groups)])).any(axis=1))
        return np.isin(self.group_of, list(groups))


def long_form(table: RawTable, task: str, target: str, order_by: str | None, *, binary: bool) -> Grouping:
    """One column says which group a row belongs to.

    Raises:
        InputError: If a row has no group, or a target or place in the order that is none; the message names the row.
    """
    names: list[str] = []
    targets, keys = [], _Keys(table, order_by)
    for batch in table.batches([task, target, *([order_by] if order_by else [])]):
        groups = texts(batch.columns[task])
        if groups.null_count:
            row = batch.first + int(np.flatnonzero(np.asarray(groups.is_null()))[0])
            raise InputError(f"{table.where(row)}: {task} is empty, but it says which group a row belongs to")
        names += groups.to_pylist()
        targets.append(_targets(table, target, batch.columns[target], batch.first, binary))
        keys.see(batch.columns, batch.first)
    y = np.concatenate(targets)
    _require_variety(table, y, target, binary)
    unique, group_of = np.unique(np.array(names), return_inverse=True)
    order = in_order(unique)
    group_of = np.argsort(order)[group_of.reshape(-1)].astype(np.int64)
    kept = ~np.isnan(y)
    counts = np.bincount(group_of[kept], minlength=len(unique))
    listed = [str(unique[place]) for place in order]
    if not counts.all():
        empty = int(np.flatnonzero(counts == 0)[0])
        raise InputError(f"{table.path}: {target} is empty in all rows of group {listed[empty]!r}; take them out")
    rows = np.lexsort((keys.ranks(), np.where(kept, group_of, len(unique))))[: int(kept.sum())]
    return Grouping(
        tuple(listed),
        tuple(counts.tolist()),
        y[:, None],
        rows,
        _places(rows, len(y)),
        np.where(kept, group_of, -1),
    )


def wide_form(table: RawTable, tasks: Sequence[str], order_by: str | None, *, binary: bool) -> Grouping:
    """A column a group, empty where it was not measured.

    Raises:
        InputError: If a row has a target or place in the order that is none, or a group has none at all; the message
            names it.
    """
    parts, keys = [], _Keys(table, order_by)
    for batch in table.batches([*tasks, *([order_by] if order_by else [])]):
        each = [_targets(table, task, batch.columns[task], batch.first, binary) for task in tasks]
        parts.append(np.stack(each, axis=1))
        keys.see(batch.columns, batch.first)
    y = np.concatenate(parts)
    for place, task in enumerate(tasks):
        _require_variety(table, y[:, place], task, binary)
    kept = ~np.isnan(y).all(axis=1)
    rows = np.lexsort((keys.ranks(), ~kept))[: int(kept.sum())]
    counts = (~np.isnan(y)).sum(axis=0)
    return Grouping(tuple(tasks), tuple(counts.tolist()), y, rows, _places(rows, len(y)), None)


class _Keys:
    """What rows are ordered by: numbers, or texts, as dates in ISO 8601 are."""

    def __init__(self, table: RawTable, order_by: str | None) -> None:
        self._table, self._name, self._rows = table, order_by, 0
        self._texts: list[str] = []

    def see(self, columns: dict[str, Any], first: int) -> None:
        """Keep those of a batch."""
        self._rows = first - 1 + len(next(iter(columns.values())))
        if self._name is None:
            return
        found = texts(columns[self._name])
        if found.null_count:
            row = first + int(np.flatnonzero(np.asarray(found.is_null()))[0])
            raise InputError(f"{self._table.where(row)}: {self._name} is empty, but rows are ordered by it")
        keys = found.to_pylist()
        if (date := dates_out_of_order(keys)) is not None:
            raise InputError(
                f"{self._table.path}: {self._name} is {date!r}, but texts are ordered letter by letter: write dates "
                "with the year first, as 2024-03-31"
            )
        self._texts += [with_point(key, self._table.decimal) for key in keys]

    def ranks(self) -> NDArray[np.int64]:
        """[raw rows] equal for equal keys; all zero without a column."""
        if self._name is None:
            return np.zeros(self._rows, dtype=np.int64)
        found: NDArray[np.int64] = np.unique(_as_numbers(np.array(self._texts)), return_inverse=True)[1].reshape(-1)
        return found


def in_order(names: NDArray[np.str_]) -> NDArray[np.int64]:
    """[n] the places of names in their order: as numbers, where all are."""
    found: NDArray[np.int64] = np.argsort(_as_numbers(names), kind="stable")
    return found


def _as_numbers(names: NDArray[np.str_]) -> Order:
    """Texts as the numbers that all of them are, or as they are."""
    try:
        return names.astype(np.float64)
    except ValueError:
        return names


def _targets(table: RawTable, name: str, column: Any, first: int, binary: bool) -> NDArray[np.float64]:
    """NaN where there is none."""
    if binary:
        found = texts(column).to_pylist()
        values = [np.nan if text is None else float(SPELLINGS.get(_plain(text), 2)) for text in found]
        y = np.array(values, dtype=np.float64)
        if (bad := np.flatnonzero(y == 2)).size:
            told = f"{found[bad[0]]!r}; of binary targets give 0 for a negative and 1 for a positive"
            raise InputError(f"{table.where(first + int(bad[0]))}: {name} is {told}")
        return y
    read = numbers(column, table.decimal)
    if (bad := np.flatnonzero(read.bad | (np.abs(np.nan_to_num(read.values)) > np.finfo(np.float32).max))).size:
        cell = column[int(bad[0])].as_py()
        told = f"{cell!r}, not a finite number of 32 bits, but it is the target{comma_hint(str(cell), table.decimal)}"
        raise InputError(f"{table.where(first + int(bad[0]))}: {name} is {told}")
    return read.values


def _plain(text: str) -> str:
    return text.lower().removesuffix(".0")


def _require_variety(table: RawTable, y: NDArray[np.float64], name: str, binary: bool) -> None:
    known = np.unique(y[~np.isnan(y)])
    if not len(known):
        raise InputError(f"{table.path}: target {name!r} is empty in every row")
    if len(known) < 2:
        one = ("negative" if known[0] == 0 else "positive") if binary else f"{known[0]:g}"
        raise InputError(f"{table.path}: target {name!r} is {one} in every row: there is nothing to learn")


def _places(rows: NDArray[np.int64], raw: int) -> NDArray[np.int64]:
    found = np.full(raw, -1, dtype=np.int64)
    found[rows] = np.arange(len(rows))
    return found
