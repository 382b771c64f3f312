"""One command that says what holds and what it costs on a GPU.

    python -m jobs.benchmarks.gpu [--out gpu-record] [--omniglot omniglot.arrow] [--only SECTION ...] [--budget-s 560]
    python -m jobs.benchmarks.gpu --device cpu --small
    python -m jobs.benchmarks.gpu --table RECORD
    python -m jobs.benchmarks.gpu --keep RECORD

Runs the sections one after the other, each in a process of its own, and prints every case as it ends and all tables
last. OUT/record.json and OUT/tables.md hold the same; the record is rewritten after every case. Exits 1 if something
was wrong, failed or was cut off, 2 if there is no such device.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from jobs.benchmarks.gpu.machine import machine
from jobs.benchmarks.gpu.page import keep
from jobs.benchmarks.gpu.record import Record
from jobs.benchmarks.gpu.section import Setting
from jobs.benchmarks.gpu.sections import BUDGETS_S, DEFAULT, TRAIN_S
from jobs.benchmarks.gpu.supervise import run_here, supervised
from jobs.benchmarks.gpu.table import summary, tables
from metaray.errors import InputError
from metaray.training.device import choose_device

BUDGET_S = 560.0


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu-record"), help="folder for the record and the tables")
    parser.add_argument("--only", nargs="+", choices=list(BUDGETS_S), default=list(DEFAULT), metavar="SECTION")
    parser.add_argument(
        "--budget-s", type=float, default=BUDGET_S, help="for all sections together; where all is small, the only limit"
    )
    parser.add_argument("--train-s", type=float, default=TRAIN_S, help="seconds to train for")
    parser.add_argument("--omniglot", type=Path, help="Omniglot's class store; without one it trains on glyphs")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny networks and few cases, to check the script")
    parser.add_argument("--add", action="store_true", help="go on with the record in OUT instead of a new one")
    parser.add_argument("--here", action="store_true", help="run the sections in this process; for one of them")
    parser.add_argument("--table", type=Path, metavar="RECORD", help="print a record's tables, and nothing else")
    parser.add_argument("--keep", type=Path, metavar="RECORD", help="keep a record in docs/, and write docs/gpu.md")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; the exit code."""
    options = parsed(arguments)
    if options.table:
        print(tables(Record(options.table)))
        return 0
    if options.keep:
        print(f"kept as {keep(options.keep, Path('docs'))}")
        return 0
    try:
        device = choose_device(options.device)
        if options.omniglot is not None and not options.omniglot.is_file():
            raise InputError(f"--omniglot {str(options.omniglot)!r}: there is no such file")
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    path = options.out / "record.json"
    if options.here:
        with tempfile.TemporaryDirectory(prefix="metaray-gpu-") as scratch:
            setting = Setting(device, Path(scratch), options.small, options.train_s, options.omniglot)
            run_here(options.only, setting, Record(path), options.budget_s)
        return 0
    record = Record(path) if options.add and path.exists() else Record.new(path, machine(device))
    record = supervised(options.only, options, record)
    text = tables(record)
    (options.out / "tables.md").write_text(text)
    print(f"\n{text}\n{summary(record)}")
    return 0 if record.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
