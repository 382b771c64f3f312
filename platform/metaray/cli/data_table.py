"""`metaray data import table`, and what `metaray data describe` says of its file."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

import typer

from metaray.cli.options import DecimalMark
from metaray.cli.store_options import Out, Seed, splits_of
from metaray.data.names import some
from metaray.displays.table import print_table
from metaray.errors import InputError

MOST_COLUMNS = 40
"""Columns that are told on the screen, at most."""


def table(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A CSV or Parquet file whose columns have names.")],
    task: Annotated[
        str,
        typer.Option(
            metavar="COLUMN",
            help="The column that says to which group a row belongs; with --wide the columns of the tasks, as A,B,C.",
        ),
    ],
    out: Out,
    target: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of the target, which is to be predicted.")
    ] = None,
    wide: Annotated[
        bool, typer.Option("--wide", help="Each column of --task is a task, with empty cells where nobody measured.")
    ] = False,
    binary: Annotated[
        bool, typer.Option("--binary", help="Targets are labels: 1 for a positive, 0 for a negative.")
    ] = False,
    order_by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="The order of a group's rows, such as time: what is learned from lies before the rest.",
        ),
    ] = None,
    categorical: Annotated[
        str | None, typer.Option(metavar="COLUMNS", help="Columns of numbers that are names of categories, as A,B.")
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN:SEPARATOR",
            help="A column of several labels a cell, such as genres:'|' of Action|Comedy.",
        ),
    ] = None,
    item: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="The column that names an item which the rows of many groups share, such as the film that is rated.",
        ),
    ] = None,
    leave_out: Annotated[
        str | None, typer.Option(metavar="COLUMNS", help="Columns that predictions do not use, as A,B.")
    ] = None,
    scaling: Annotated[
        Literal["standard", "quantile"],
        typer.Option(
            metavar="NAME",
            help="How numbers are scaled: standard, by mean and deviation; or quantile, by rank, where a few cells lie "
            "far off.",
        ),
    ] = "standard",
    decimal: DecimalMark = ".",
    as_is: Annotated[
        str | None,
        typer.Option(metavar="COLUMNS", help="Columns of numbers or vectors that are not standardised, as A,B."),
    ] = None,
    splits: Annotated[
        str | None,
        typer.Option(
            metavar="FRACTIONS",
            help="Three fractions of the groups, such as 0.64,0.16,0.2 (these, if left out); or a folder with "
            "train.txt, val.txt and test.txt, with the name of a group on each line.",
        ),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Import a table in which each group of rows is a task: a patient, a user, a shop, an assay."""
    from metaray.data.splits import USUAL
    from metaray.data.table_description import settings_of
    from metaray.data.tables.importing import import_table
    from metaray.serving.tables import split_names

    report = import_table(
        source,
        out,
        tasks=split_names(task) if wide else [task],
        target=target,
        wide=wide,
        binary=binary,
        order_by=order_by,
        categorical=split_names(categorical),
        labels=dict(map(_separated, labels or [])),
        item=item,
        leave_out=split_names(leave_out),
        scaling=scaling,
        decimal=decimal,
        as_is=split_names(as_is),
        splits=USUAL if splits is None else splits_of(splits),
        seed=seed,
    )
    meta = report.meta
    parts = " / ".join(str(len(meta.splits[part])) for part in meta.splits)
    print(f"wrote {report.path}: {len(meta.groups)} groups, {report.rows} rows")
    print(f"splits: {parts} groups for meta-train, meta-val, meta-test: {meta.origin['splits']}")
    numbers = [column.name for column in meta.preprocessing.numbers]
    categories = [column.name for column in meta.preprocessing.categories]
    vectors = [f"{one.name} of {one.size} numbers" for one in meta.preprocessing.vectors]
    several = [f"{column.name} ({len(column.labels)})" for column in meta.preprocessing.labels]
    items = [] if meta.preprocessing.item is None else [f"{item} ({len(meta.preprocessing.item.items)})"]
    held = {"numbers": numbers, "categories": categories, "labels": several, "vectors": vectors, "items": items}
    for what, names in held.items():
        if names:
            print(f"{what}: {some(names, MOST_COLUMNS)}")
    for note in report.notes:
        print(f"note: {note}")
    print(f"to learn it: {settings_of(meta)}")


def describe_table(path: str, shots: str, queries: str, *, verify: bool, as_json: bool) -> None:
    """Print what a table holds."""
    from metaray.data.episode_spec import EpisodeSpec
    from metaray.data.servers import shown
    from metaray.data.table_description import described

    spec = EpisodeSpec.parse({"shots": shots, "queries": queries}, where="episodes")
    found = described(path, spec, verify=verify)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
        return
    meta = found.meta
    form = "wide, " if meta.wide else ""
    target = "" if meta.wide else f" {meta.target!r}"
    print(f"{shown(path)}: {len(meta.groups)} groups, {found.rows} rows, {form}{meta.kind} target{target}")
    print(f"fingerprint: {meta.fingerprint}")
    if meta.ordered_by is not None:
        print(f"ordered by: {meta.ordered_by}")
    parts = [
        (one.part, str(one.groups), one.sizes, one.targets, str(one.left_out), count(one.episodes))
        for one in found.parts
    ]
    targets = "share of positives" if meta.kind == "binary" else "target"
    counted = f"distinct {found.spec.in_short} episodes"
    print_table(("part", "groups", "rows a group", targets, "too small", counted), parts)
    columns = [(one.name, one.holds, f"{one.missing:.1%}", one.values) for one in found.columns[:MOST_COLUMNS]]
    print_table(("column", "holds", "missing", "mean and std, or how many"), columns)
    if (more := len(found.columns) - MOST_COLUMNS) > 0:
        print(f"... and {more} more columns; --json has all")
    if found.items is not None:
        for line in found.items.lines:
            print(line)
    for note in found.notes:
        print(f"note: {note}")
    print(f"to learn it: {found.settings}")


def is_table(store: str) -> bool:
    """Whether what a path or URI leads to, fetched if need be, is a table."""
    from metaray.data.remote import held
    from metaray.data.tables.table_file import is_table_file

    with held(store) as local:
        return is_table_file(local)


def _separated(option: str) -> tuple[str, str]:
    """A column and what separates its labels, which may be a colon."""
    name, _, separator = option.partition(":")
    if not name or not separator:
        raise InputError(f"--labels {option!r}: write it as COLUMN:SEPARATOR, for instance genres:'|'")
    return name, separator


def count(episodes: int) -> str:
    """A number of episodes, in short."""
    return f"{Decimal(episodes):.3e}" if episodes >= 10**6 else str(episodes)
