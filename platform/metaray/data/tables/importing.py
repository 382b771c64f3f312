"""`metaray data import table`: a CSV or Parquet file as a file of tasks, read by batches."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaray.data.draws import Split
from metaray.data.names import counted, some
from metaray.data.splits import USUAL, Fractions, chosen_splits
from metaray.data.store_file import check_writable
from metaray.data.tables.columns import Fit, categorical_of, compact, look
from metaray.data.tables.grouping import Grouping, long_form, wide_form
from metaray.data.tables.items import MOST_SHRINKAGE, FittedItems, fitted_items
from metaray.data.tables.raw_table import RawTable
from metaray.data.tables.table_file import TableMeta, version_of, write_table
from metaray.errors import InputError, unknown

RESERVED = ("role",)


class TableReport(NamedTuple):
    """What an import made.

    Attributes:
        path: of the file.
        meta: its description.
        rows: that it holds.
        notes: what the user should know, a sentence each.
    """

    path: Path
    meta: TableMeta
    rows: int
    notes: tuple[str, ...]


def import_table(
    source: Path,
    out: Path,
    *,
    tasks: Sequence[str],
    target: str | None = None,
    wide: bool = False,
    binary: bool = False,
    order_by: str | None = None,
    categorical: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    item: str | None = None,
    leave_out: Sequence[str] = (),
    splits: Path | Fractions | Mapping[Split, Sequence[str]] = USUAL,
    seed: int = 0,
) -> TableReport:
    """Write a table as a file for `GroupTable`: whole or not at all.

    The columns that are none of those named below are what a row's target is predicted from: numbers, or categories
    where none of the cells is a number. Both are standardised and numbered by the rows of meta-train alone.

    Args:
        source: a CSV or Parquet file.
        out: the file to write.
        tasks: in long form one column, which says to which group a row belongs; in wide form a column a group, empty
            where it was not measured.
        target: of the long form: the column of what is predicted.
        wide: which form it is.
        binary: targets are labels, 0 and 1, and not values.
        order_by: a column by which the rows of a group are in order, as time. It is not predicted from.
        categorical: columns of categories whose cells are numbers.
        labels: columns of several labels a cell, and what separates these.
        item: of the long form: a column that names an item which the rows of many groups share, as films are rated by
            users. Rows then have the mean of the item's targets in meta-train, and their number.
        leave_out: columns that are not predicted from.
        splits: the names of the groups of meta-train, meta-val and meta-test; a folder with train.txt, val.txt and
            test.txt of them; or fractions by which they are drawn.
        seed: of the drawing.

    Raises:
        InputError: what is wrong with the table or the options, and what would be right.
    """
    check_writable(out)
    table = RawTable(source)
    separators = dict(labels or {})
    named = {"--categorical": categorical, "--labels": list(separators), "--item": [item] if item else []}
    features = _features(table, tasks, target, wide, order_by, named, leave_out, binary)
    content = look(table, features)
    if not any(one.numbers + one.others + one.lacking for one in content.values()):
        raise InputError(f"{source}: has no rows below its header")
    chosen = categorical_of(table, content, [name for names in named.values() for name in names])
    chosen -= {*separators, *named["--item"]}
    if wide:
        grouping = wide_form(table, tasks, order_by, binary=binary)
    else:
        assert target is not None
        grouping = long_form(table, tasks[0], target, order_by, binary=binary)
    parts, how = _splits(grouping.groups, splits, seed)
    numbers = {split: tuple(grouping.groups.index(name) for name in names) for split, names in parts.items()}
    of_train = grouping.of_groups(numbers["meta-train"])
    own = [name for name in features if name != item]
    fit = Fit(own, chosen, {name for name in own if content[name].lacking}, separators)
    for batch in table.batches(own) if own else ():
        fit.see(batch, of_train[batch.first - 1 :][: len(batch.columns[own[0]])])
    items = fitted_items(table, item, grouping, of_train) if item else None
    preprocessing = fit.preprocessing(items.column if items else None)
    y = grouping.y[of_train][:, numbers["meta-train"] if wide else slice(None)]
    meta = TableMeta(
        version=version_of(preprocessing),
        kind="binary" if binary else "regression",
        target="" if wide else str(target),
        ordered_by=order_by,
        wide=wide,
        groups=grouping.groups,
        counts=grouping.counts,
        splits=numbers,
        preprocessing=preprocessing,
        target_mean=float(np.nanmean(y)),
        target_std=float(np.nanstd(y)) or 1.0,
        origin={"importer": "table", "source": source.name, "splits": how},
    )
    meta, rows = _write(out, meta, table, features, grouping, items), len(grouping.rows)
    notes = [f"{name!r} is the same in all rows of meta-train" for name in fit.constant] + fit.left_out
    if items and items.column.shrinkage == MOST_SHRINKAGE:
        notes.append(f"{item!r}: rows of an item are no more alike than others, so that its mean says nothing")
    if lost := len(grouping.order_of) - rows:
        notes.append(f"{counted(lost, 'row')} without a target left out")
    return TableReport(out, meta, rows, tuple(notes))


def _write(
    out: Path,
    meta: TableMeta,
    table: RawTable,
    features: Sequence[str],
    grouping: Grouping,
    items: FittedItems | None,
) -> TableMeta:
    """Encode the rows in their new order, in a file without a name beside the store: they may be more than memory."""
    rows = len(grouping.rows)
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out.absolute().parent) as scratch:
        x: NDArray[np.float32] = np.memmap(scratch, np.float32, "w+", shape=(rows, *meta.preprocessing.feature_shape))
        for batch in table.batches(features):
            here = slice(batch.first - 1, batch.first - 1 + len(batch.columns[features[0]]))
            found = compact(meta.preprocessing, batch, str(table.path), items.of(here) if items else None)
            places = grouping.order_of[here]
            x[places[places >= 0]] = found[places >= 0]
        return write_table(out, meta, x, grouping.y[grouping.rows].astype(np.float32)).meta


def _features(
    table: RawTable,
    tasks: Sequence[str],
    target: str | None,
    wide: bool,
    order_by: str | None,
    named: Mapping[str, Sequence[str]],
    leave_out: Sequence[str],
    binary: bool,
) -> list[str]:
    """The columns that are predicted from."""
    if wide and target is not None:
        raise InputError("--target: in wide form each column of --task holds targets of its own; leave it out")
    if not wide and target is None:
        raise InputError("--target: the column of what is predicted; or --wide, where each column of --task is a task")
    if not wide and len(tasks) != 1:
        raise InputError(f"--task: one column says which group a row belongs to (got {len(tasks)}); or is it --wide?")
    if wide and len(tasks) < 3:
        raise InputError(f"--task: in wide form a column a task, at least one for each split (got {len(tasks)})")
    others = [] if target is None else [target]
    table.require(tasks, "--task")
    table.require(others, "--target")
    table.require([order_by] if order_by else [], "--order-by")
    for option, names in named.items():
        table.require(names, option)
    table.require(leave_out, "--leave-out")
    used = [*tasks, *others, *([order_by] if order_by else [])]
    if twice := [name for name in used if used.count(name) > 1]:
        raise InputError(f"{table.path}: column {twice[0]!r} cannot be two of --task, --target and --order-by")
    if wide and named["--item"]:
        raise InputError("--item: in wide form a row is shared by tasks already; items are of the long form")
    seen = list(used)
    for option, names in named.items():
        if both := [name for name in names if name in seen or name in leave_out]:
            raise InputError(f"{option}: {both[0]!r} is no column to predict from here, or is one of other options")
        seen += names
    features = [name for name in table.names if name not in used and name not in leave_out]
    if not features:
        raise InputError(f"{table.path}: no column is left to predict from; it has {', '.join(table.names)}")
    for name in features:
        if name in (*RESERVED, "label" if binary else "y"):
            raise InputError(f"{table.path}: column {name!r} has a name that learners' tables need; rename it")
    return features


def _splits(
    names: Sequence[str], splits: Path | Fractions | Mapping[Split, Sequence[str]], seed: int
) -> tuple[Mapping[Split, Sequence[str]], str]:
    if isinstance(splits, Mapping):
        for split, chosen in splits.items():
            for name in chosen:
                if name not in names:
                    raise unknown(f"group of {split}", name, names)
        owners = [name for chosen in splits.values() for name in chosen]
        if twice := sorted({name for name in owners if owners.count(name) > 1}):
            raise InputError(f"splits: groups in more than one part: {some(twice)}")
        return {split: splits.get(split, ()) for split in ("meta-train", "meta-val", "meta-test")}, "given"
    return chosen_splits(names, splits, seed)
