"""Fixtures of one version, taken up by another: registered learners, runs, searches, a class store.

    python -m jobs.benchmarks.unchanged.fixtures make FOLDER [--tree OLD_COMMIT]
    python -m jobs.benchmarks.unchanged.fixtures check FOLDER [--tree COMMIT]

Both use the working tree unless told otherwise. A folder can be checked again and again, by one version after another:
what goes on does so in a copy. Exit code 1 if anything is not as it was.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from jobs.benchmarks.unchanged.making import ASKED, GO_ON, make, predict
from jobs.benchmarks.unchanged.outcome import (
    SAME,
    TIMED,
    Values,
    cell,
    compared,
    difference,
    flat,
    outcome_of,
    without_additions,
)
from jobs.benchmarks.unchanged.running import run_plan
from jobs.benchmarks.unchanged.trees import ROOT, old_tree

SHARED = ("images", "logs", "mlartifacts", "plan.json", "predictions.json")
"""What a copy of the fixtures leaves out; MLflow finds its artifacts where they are."""
WENT_ON = "going on from the checkpoint of step"
"""What `metaray train` says of a run that it takes up."""
OF_THE_RUN = re.compile(r"(^|\.)(search|storage|tracking_uri|tracking_run|run|learner|notes)$")
"""Keys of a search's answer that name it, where another name is right."""
REFUSED_IMPORT = re.compile(r"refusing to import '([^']+)'")


class Found(NamedTuple):
    """A line of the table.

    Attributes:
        fixture: what was taken up, and how.
        found: "same", the first difference, or that it was refused for its format.
    """

    fixture: str
    found: str

    @property
    def refused(self) -> bool:
        """Whether a later version says in one message that it does not take the format."""
        return self.found.startswith("refused: ")


def check(tree: Path, folder: Path) -> list[Found]:
    """Take up all fixtures of a folder.

    Args:
        tree: that metaray comes from.
        folder: that `make` made; stays as it is, but for artifacts that runs which go on leave in MLflow.

    Raises:
        ValueError: if the folder holds no fixtures, or a process breaks off.
    """
    if not (folder / "predictions.json").is_file():
        raise ValueError(f"{folder} holds no fixtures; `make` makes them in a new folder")
    with tempfile.TemporaryDirectory(prefix="fixtures-") as name:
        copy = Path(name) / "check"
        shutil.copytree(folder, copy, ignore=lambda at, names: SHARED if Path(at) == folder else ())
        predict(tree, copy)
        run_plan(tree, copy, [*ASKED, *GO_ON.items()])
        asked = [Found(f"`metaray {arguments[0]}`: {name}", answer(folder, copy, name)) for name, arguments in ASKED]
        runs = [Found(f"{name}, stopped half-way", gone_on(folder, copy, name)) for name in GO_ON]
        return [*learners(folder, copy), *asked, *runs]


def learners(folder: Path, copy: Path) -> list[Found]:
    """Whether each learner predicts what it predicted, by each way of loading it."""
    old, new = (json.loads((at / "predictions.json").read_text()) for at in (folder, copy))
    return [Found(f"learner {name}", predicted(old[name], new[name])) for name in old]


def predicted(old: list[Any], new: list[Any]) -> str:
    """ "same", or the first difference between predictions.

    A column that is new beside the old ones is none, nor are other words for what is not imported without trust.
    """
    before, after = flat(old), flat(new)
    if len(old) == len(new):
        after = {key: value for key, value in after.items() if key in before}
    if (name := _not_imported(old)) is not None and name == _not_imported(new):
        return SAME
    return difference(before, after)


def _not_imported(rows: list[Any]) -> str | None:
    """The code that a learner was not loaded for want of trust in; None if it was, or for another reason."""
    found = REFUSED_IMPORT.search(rows[0]) if len(rows) == 1 and isinstance(rows[0], str) else None
    return None if found is None else found[1]


def answer(folder: Path, copy: Path, name: str) -> str:
    """Whether a command prints what it printed."""
    refusal = refused(copy, name)
    before = printed(folder, name)
    return refusal or difference(before, without_additions(before, printed(copy, name)))


def gone_on(folder: Path, copy: Path, name: str) -> str:
    """Whether what was stopped ended as its reference, which never was."""
    refusal = refused(copy, name)
    if refusal:
        return refusal
    if name == "search":
        trained = json.loads((folder / "runs" / name / "trial-0000" / "run.json").read_text())
        if printed(copy, name)["trials.0.tracking_run"] != json.dumps(trained["tracking_run"]):
            return "a trial that was done was trained again"
        reference = _searched(folder, f"{name}-reference")
        return difference(reference, without_additions(reference, _searched(copy, name)))
    if WENT_ON not in (copy / "logs" / f"{name}.err").read_text():
        return "it began again"
    old, new = outcome_of(folder / "runs" / f"{name}-reference"), outcome_of(copy / "runs" / name)
    row = compared(name, old, new)
    return next((part for part in row[1:] if part != SAME), SAME)


def refused(at: Path, name: str) -> str:
    """What a command said instead of an answer; empty if it gave one."""
    code = (at / "logs" / f"{name}.code").read_text()
    said = (at / "logs" / f"{name}.err").read_text().strip().splitlines()
    if code == "0":
        return ""
    told = [line for line in said if line.startswith("error: ")]
    if code == "2" and len(told) == 1 and said[-1] == told[0] and "format" in told[0]:
        return f"refused: {told[0].removeprefix('error: ')}"
    return f"exit code {code}: {' '.join(said[-1:])}"


def printed(at: Path, name: str) -> Values:
    """What a command printed as JSON, by key; without the place of the database, and seconds that it measured."""
    found = flat(json.loads((at / "logs" / f"{name}.out").read_text()))
    again = {key: value for key, value in found.items() if key != "tracking_uri"}
    return again if name == "finished" else {key: value for key, value in again.items() if not TIMED.search(key)}


def _searched(at: Path, name: str) -> Values:
    return {key: value for key, value in printed(at, name).items() if not OF_THE_RUN.search(key)}


def table(rows: list[Found]) -> str:
    """In Markdown, with the line that sums it up."""
    lines = ["| fixture | found |", "|---|---|", *(f"| {row.fixture} | {cell(row.found)} |" for row in rows)]
    refusals = sum(row.refused for row in rows)
    told = f", {refusals} refused for their format" if refusals else ""
    return "\n".join([*lines, "", f"{sum(row.found == SAME for row in rows)} of {len(rows)} equal{told}"])


def passed(rows: list[Found]) -> bool:
    """Whether each is as it was, or refused for its format in one message."""
    return all(row.found == SAME or row.refused for row in rows)


def main(argv: list[str] | None = None) -> int:
    """0 if all is as it was, 1 if not, 2 if the command line is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks.unchanged.fixtures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("make", "check"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tree", default=str(ROOT), help="commit or folder; by default the working tree")
    options = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="unchanged-") as name:
            tree = old_tree(options.tree, Path(name) / "tree")
            if options.what == "make":
                make(tree, options.folder.absolute())
                return 0
            rows = check(tree, options.folder.absolute())
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(rows))
    return 0 if passed(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
