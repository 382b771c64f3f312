"""`metaray runs`: list, show, clean."""

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metaray.cli.amounts import size_text, wrapped
from metaray.cli.help import Command, Group
from metaray.cli.json_out import print_json
from metaray.cli.options import AsJson, RunStorage
from metaray.cli.run_lines import detail_lines, print_overviews
from metaray.cli.table_out import TableOut, require_place, write_table
from metaray.errors import redacted

if TYPE_CHECKING:
    from metaray.api.cleaning import Cleaning
    from metaray.api.runs import Detail
    from metaray.records.overview import Overview

app = typer.Typer(cls=Group, help="List, show and clean up what training has left in a folder of runs.")


@app.command("list", cls=Command)
def list_runs(storage: RunStorage = "runs", as_json: AsJson = False) -> None:
    """List runs and searches: their state, how good they are and when they last changed, the newest first."""
    from metaray.api import runs

    found = runs.list_runs(storage)
    if as_json:
        print_json([_tree(seen) for seen in found])
    elif found:
        print_overviews(found, time.time())
    else:
        print(f"no runs in {redacted(storage)}")


@app.command(cls=Command)
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Name of a run or a search, as `metaray runs list` prints it, or SEARCH/trial-0000."
        ),
    ],
    storage: RunStorage = "runs",
    by: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="Show a finished run's meta-test by this alone: support or query (the number of examples), or group "
            "(all of them, the worst first).",
        ),
    ] = None,
    table: TableOut = None,
    as_json: AsJson = False,
) -> None:
    """Show what a run or a search has left: where it comes from, how far it is, its result or its failure."""
    from metaray.api import runs

    require_place(table)
    detail = runs.show_run(storage, name)
    if table is not None:
        write_table(runs.judged_of(detail), table)
    if by is not None:
        found = runs.parts_of(detail, by)
        if as_json:
            print_json([part.tree() for part in found])
            return
        for part in found:
            print(runs.judged_of(detail).told_of(part))
        return
    if as_json:
        print_json(_detail_tree(detail))
        return
    for line in detail_lines(detail, time.time()):
        print(line)


@app.command(cls=Command)
def clean(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Runs and searches that are to go whole; without any, the leftovers of all of them: what broken-off "
            "writes left, runs that were never begun, and of finished runs the checkpoints that are neither the newest "
            "nor the best.",
        ),
    ] = None,
    storage: RunStorage = "runs",
    yes: Annotated[bool, typer.Option("--yes", help="Delete what is found; without this it is only listed.")] = False,
) -> None:
    """List leftovers in a folder of runs, and delete them with --yes; unfinished runs are left alone.

    A finished run keeps its learner, its result, and what it needs to go on. Runs in MLflow stay.
    """
    from metaray.api.cleaning import clean_leftovers, remove_runs

    done = remove_runs(storage, names, delete=yes) if names else clean_leftovers(storage, delete=yes)
    for line in _cleaning_lines(done):
        print(line)


def _cleaning_lines(done: "Cleaning") -> list[str]:
    lines: list[str] = []
    for name, leftover in done.found:
        path = f"{name}/{leftover.path}" if leftover.path not in ("", name) else name
        verb = "deleted" if done.done else "would delete"
        lines += wrapped(f"{verb} {path}: {leftover.what}, {size_text(leftover.size_bytes)}")
    for name, why in done.passed_over.items():
        lines += wrapped(f"left alone {name}: {redacted(why)}")
    if not done.found:
        return [*lines, "nothing to delete"]
    total = f"{len(done.found)} in all, {size_text(done.size_bytes)}"
    return [*lines, f"deleted {total}" if done.done else f"nothing was deleted; --yes deletes {total}"]


def _tree(seen: "Overview") -> dict[str, Any]:
    """A run at a glance, for JSON."""
    changed = datetime.fromtimestamp(seen.changed_s, UTC).isoformat(timespec="seconds") if seen.changed_s else None
    tree = asdict(seen) | {"score": None if seen.score is None else seen.score._asdict()}
    del tree["changed_s"]
    empty = {key: None for key in ("experiment", "holder", "why") if not tree[key]}
    tree |= {"changed": changed, "why": redacted(seen.why)} | empty
    if seen.score is not None:
        tree["score"]["mean"] = seen.score.mean
    return tree


def _detail_tree(detail: "Detail") -> dict[str, Any]:
    """All of a run or a search, for JSON."""
    tree = _tree(detail.seen) | {"folder": redacted(detail.folder)}
    if detail.seen.kind == "search":
        tree |= {"trials": [_tree(trial) for trial in detail.trials], "winner": detail.winner}
    else:
        tree |= {"tags": dict(detail.tags), "checkpoints": list(detail.checkpoints), "learner": detail.learner}
        tree["last"] = {one.key: {"value": one.value, "step": one.step} for one in detail.last}
        tree["result"] = None if detail.result is None else json.loads(detail.result.to_json())
        tree["breakdown"] = None if detail.judged is None else detail.judged.tree()
        tree["failure"] = redacted(detail.failure) or None
    return tree | {"notes": [redacted(note) for note in detail.notes]}
