"""`metaray data import table`: a CSV or Parquet file as a file of tasks, read by batches."""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaray.data.draws import Split
from metaray.data.names import counted, some
from metaray.data.replacing import check_replaceable
from metaray.data.splits import GROUPS, USUAL, Fractions, chosen_splits
from metaray.data.tables.advice import advice
from metaray.data.tables.columns import Content, categorical_of, compact, look
from metaray.data.tables.fitting import Fit, Scaling
from metaray.data.tables.grouping import Grouping, long_form, wide_form
from metaray.data.tables.items import MOST_SHRINKAGE, FittedItems, fitted_items
from metaray.data.tables.notation import Decimal
from metaray.data.tables.packed import packing, places_of, scales
from metaray.data.tables.raw_table import RawTable
from metaray.data.tables.table_file import TableMeta, read_table, write_table
from metaray.data.tables.vectors import Vectors
from metaray.errors import InputError, unknown

RESERVED = ("role",)


class TableReport(NamedTuple):
    """The result of an import.

    Attributes:
        path: Path of the written file.
        meta: Metadata of the file.
        rows: Number of rows that the file holds.
        notes: Messages for the user, one sentence each.
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
    scaling: Scaling = "standard",
    decimal: Decimal = ".",
    as_is: Sequence[str] = (),
    splits: Path | Fractions | Mapping[Split, Sequence[str]] = USUAL,
    seed: int = 0,
) -> TableReport:
    """Write a table as a file for `GroupTable`, completely or not at all.

    All columns that are not named below are inputs: numbers, or categories if none of the cells is a number. Numbers
    are standardised, and categories numbered, by the rows of meta-train alone. A column of lists of equal length holds
    vectors, whose numbers are scaled alike; vectors of whole numbers that fit into a byte, such as fingerprints, are
    not scaled.

    Args:
        source: Path of a CSV or Parquet file.
        out: Path of the file to write.
        tasks: Names of columns. In long form one column, which names the group of a row; in wide form one target column
            for each group, empty where it was not measured.
        target: Name of the target column; only in long form.
        wide: Whether the table is in wide form; otherwise it is in long form.
        binary: Whether targets are labels, 0 and 1, rather than values.
        order_by: Column by which the rows of a group are ordered, such as time. It is not an input.
        categorical: Columns of categories whose cells are numbers.
        labels: Columns with several labels in a cell, and the separator of these labels.
        item: Column whose cells name items that many groups share, such as films that users rate; only in long form.
            Inputs then include the mean and the number of the item's targets in meta-train.
        leave_out: Columns that are not inputs.
        scaling: How numbers are scaled: "standard" by mean and standard deviation, or "quantile" by rank, for columns
            with outliers.
        decimal: Decimal mark in a CSV file; if it is a comma, points separate thousands.
        as_is: Columns of numbers or vectors that are not standardised.
        splits: Names of the groups of meta-train, meta-val and meta-test; a folder with train.txt, val.txt and test.txt
            of these names; or the shares of groups, drawn at random.
        seed: Seed of the random splits.

    Raises:
        InputError: If the table or an option is invalid; the message says what would be right.
    """
    check_replaceable(out, [source])
    table = RawTable(source, decimal)
    separators = dict(labels or {})
    named = {"--categorical": categorical, "--labels": list(separators), "--item": [item] if item else []}
    features = _features(table, tasks, target, wide, order_by, named, leave_out, binary)
    if unknown_ones := [name for name in as_is if name not in features]:
        raise InputError(f"--as-is: {unknown_ones[0]!r} is no column to predict from here")
    content = look(table, features)
    if not any(one.size if isinstance(one, Vectors) else one.cells for one in content.values()):
        raise InputError(f"{source}: has no rows below its header")
    chosen = categorical_of(table, content, [name for names in named.values() for name in names])
    if both := chosen & set(as_is):
        raise InputError(f"--as-is: {min(both)!r} holds no numbers, and so nothing to standardise")
    chosen -= {*separators, *named["--item"]}
    if wide:
        grouping = wide_form(table, tasks, order_by, binary=binary)
    else:
        assert target is not None
        grouping = long_form(table, tasks[0], target, order_by, binary=binary)
    parts, how = _splits(grouping.groups, splits, seed)
    numbers = {split: tuple(grouping.groups.index(name) for name in names) for split, names in parts.items()}
    of_train = grouping.of_groups(numbers["meta-train"])
    sizes = {name: one.size for name, one in content.items() if isinstance(one, Vectors)}
    whole = {name for name, one in content.items() if one.whole and name not in chosen}
    missing = {name for name, one in content.items() if isinstance(one, Content) and one.lacking}
    own = [name for name in features if name != item]
    fit = Fit(
        own,
        chosen,
        missing,
        scaling=scaling,
        total=int(of_train.sum()),
        as_is={*as_is, *(whole & sizes.keys())},
        sizes=sizes,
        separators=separators,
    )
    for batch in table.batches(own) if own else ():
        fit.see(batch, of_train[batch.first - 1 :][: len(batch.columns[own[0]])])
    items = fitted_items(table, item, grouping, of_train) if item else None
    preprocessing = fit.preprocessing(items.column if items else None)
    if not preprocessing.feature_shape[0]:
        raise InputError(
            f"{source}: no row of meta-train has a label in {some([repr(name) for name in own])}, and there is no "
            "other column to predict from"
        )
    y = grouping.y[of_train][:, numbers["meta-train"] if wide else slice(None)]
    meta = TableMeta(
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
        small=packing(preprocessing, whole),
        origin={"importer": "table", "source": source.name, "splits": how},
    )
    meta, rows = _write(out, meta, table, features, grouping, items), len(grouping.rows)
    notes = _notes(content, fit, items)
    if lost := len(grouping.order_of) - rows:
        notes.append(f"{counted(lost, 'row')} without a target left out")
    notes += advice(read_table(out))
    return TableReport(out, meta, rows, tuple(notes))


def _notes(content: Mapping[str, Content | Vectors], fit: Fit, items: FittedItems | None) -> list[str]:
    """Sentences about columns that say nothing, or too much."""
    notes = []
    if still := fit.constant:
        notes = [f"{some([repr(name) for name in still])}: the same in all rows of meta-train"]
    notes += [
        f"{name!r} counts the rows: --leave-out {name!r}"
        for name, one in content.items()
        if isinstance(one, Content) and one.counts_rows
    ]
    notes += [
        f"{name!r} holds dates, which are categories that rows of later days have not: --leave-out {name!r}, or "
        f"--order-by {name!r}"
        for name in fit.dates
    ]
    notes += fit.left_out
    if items and items.column.shrinkage == MOST_SHRINKAGE:
        name = items.column.name
        notes.append(f"{name!r}: rows of an item are no more alike than others, so that its mean says nothing")
    return notes


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
    width = meta.preprocessing.feature_shape[0]
    is_small = places_of(meta.small, width)
    mean, std = scales(meta.preprocessing)
    is_raw = not mean[is_small].any() and bool((std[is_small] == 1).all())
    with ExitStack() as stack:
        x = _scratch(stack, out, np.float32, rows, width - int(is_small.sum()))
        small = _scratch(stack, out, np.uint8, rows, int(is_small.sum()))
        for batch in table.batches(features):
            here = slice(batch.first - 1, batch.first - 1 + len(batch.columns[features[0]]))
            places = grouping.order_of[here]
            found = compact(meta.preprocessing, batch, str(table.path), items.of(here) if items else None)[places >= 0]
            places = places[places >= 0]
            if meta.small:
                # Standardised values are told back to the whole numbers that they were: 24 bits are enough for a byte.
                raw = found if is_small.all() else found[:, is_small]
                raw = raw if is_raw else np.rint(raw * std[is_small] + mean[is_small])
                small[places] = raw.astype(np.uint8)
                found = found[:, ~is_small]
            x[places] = found
        y = grouping.y[grouping.rows].astype(np.float32)
        return write_table(out, meta, x, y, small if meta.small else None).meta


def _scratch(stack: ExitStack, out: Path, kind: type, rows: int, width: int) -> NDArray[Any]:
    """An array in a file without a name beside the one to write; of no columns one in memory."""
    if not width:
        return np.empty((rows, 0), dtype=kind)
    file = stack.enter_context(tempfile.TemporaryFile(dir=out.absolute().parent))  # noqa: SIM115 - the stack closes it
    return np.memmap(file, kind, "w+", shape=(rows, width))


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
    if odd := table.vectors_among(used):
        raise InputError(f"{table.path}: column {min(odd)!r} holds vectors, and is no --task, --target or --order-by")
    taken = {*used, *leave_out}
    features = [name for name in table.names if name not in taken]
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
    return chosen_splits(names, splits, seed, GROUPS)
