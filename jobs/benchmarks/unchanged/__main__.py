"""Proof that a change of structure changed nothing: an old commit and the working tree train the same, bit for bit.

    python -m jobs.benchmarks.unchanged OLD_COMMIT [--only PATTERN] [--jobs 2] [--omniglot omniglot.arrow] [--out PAGE]
    python -m jobs.benchmarks.unchanged OLD_COMMIT --fixtures [--out PAGE]

Runs short experiments by both on this machine, and compares parameters, results, and the journal's keys, steps and
values; never what was timed. With --fixtures the old commit makes learners, runs, searches and a store instead, and the
working tree takes them up. Exit code 1 if anything differs. OLD_COMMIT may also be a folder that holds an old tree.
"""

import argparse
import fnmatch
import sys
import tempfile
import time
from pathlib import Path

from jobs.benchmarks.unchanged import fixtures
from jobs.benchmarks.unchanged.experiments import Compared, every
from jobs.benchmarks.unchanged.making import make
from jobs.benchmarks.unchanged.outcome import table
from jobs.benchmarks.unchanged.running import both
from jobs.benchmarks.unchanged.trees import ROOT, old_tree


def chosen(pattern: str, omniglot: Path | None) -> list[Compared]:
    """The experiments whose names fit a pattern, as of a shell.

    Raises:
        ValueError: if none does, or there is no such class store.
    """
    if omniglot is not None and not omniglot.is_file():
        raise ValueError(f"--omniglot {omniglot}: no such file")
    known = every(None if omniglot is None else str(omniglot.absolute()))
    found = [one for one in known if fnmatch.fnmatchcase(one.name, pattern)]
    if not found:
        raise ValueError(f"--only {pattern!r} fits none of {', '.join(one.name for one in known)}")
    return found


def write(path: Path, text: str) -> None:
    """Beside, then renamed."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text)
    beside.replace(path)


def compare(options: argparse.Namespace, scratch: Path) -> tuple[str, bool]:
    """The table, and whether all is equal."""
    experiments = chosen(options.only, options.omniglot)
    old = old_tree(options.old, scratch / "tree")
    if options.fixtures:
        make(old, scratch / "fixtures")
        found = fixtures.check(ROOT, scratch / "fixtures")
        return fixtures.table(found), fixtures.passed(found)
    rows = both(old, scratch, experiments, options.jobs)
    return table(rows), all(row.equal for row in rows)


def main(argv: list[str] | None = None) -> int:
    """0 if all is equal, 1 if something differs, 2 if the command line is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks.unchanged",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("old", metavar="OLD_COMMIT", help="commit, or a folder with an old tree")
    parser.add_argument("--only", metavar="PATTERN", default="*", help="names of experiments, as in 'values-*'")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once; by default one a side")
    parser.add_argument("--omniglot", type=Path, help="Omniglot's class store, for two experiments more")
    parser.add_argument("--fixtures", action="store_true", help="let the working tree take up what the old commit made")
    parser.add_argument("--out", type=Path, help="file to write the table to, in Markdown")
    parser.add_argument("--keep", type=Path, help="new folder to keep all that the runs left in")
    options = parser.parse_args(argv)
    started = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="unchanged-") as name:
            scratch = Path(name)
            if options.keep is not None:
                options.keep.mkdir(parents=True)
                scratch = options.keep.absolute()
            found, equal = compare(options, scratch)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.out:
        write(options.out, found + "\n")
    print(f"{(time.perf_counter() - started) / 60:.1f} minutes", file=sys.stderr)
    print(found)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
