"""Damaged and hostile input of every kind that metaray reads, and what becomes of it.

    python -m tests.fuzz [--seed 0] [--cases 500] [--only "class store"] [--show 3]

Case n of a surface depends on the seed and n alone. Ends with exit code 1 if anything but a clear refusal, the same
result or, where input may differ, another result came of a case.
"""

import argparse
import os
import sys
import tempfile
import time

from tests.fuzz.pool import run
from tests.fuzz.runner import OUTCOMES, Report

ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
HEADINGS = {
    "clean": "clean",
    "same": "same result",
    "other": "other result",
    "exception": "other exception",
    "hang": "hang",
    "crash": "crash",
    "wrong": "accepted wrong",
}


def main() -> int:
    """Run all surfaces and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=500, help="cases a surface")
    parser.add_argument("--only", action="append", help="names of surfaces; may be repeated")
    parser.add_argument("--first", type=int, default=0, help="number of the first case, to repeat one")
    parser.add_argument("--show", type=int, default=2, help="bad cases shown in full, a surface")
    options = parser.parse_args()
    started_s = time.monotonic()
    os.environ |= ENVIRONMENT
    with tempfile.TemporaryDirectory() as scratch:
        os.environ |= {"TMPDIR": scratch, "METARAY_CACHE": f"{scratch}/cache"}
        reports = run(options.seed, range(options.first, options.first + options.cases), options.only)
    print(table(reports))
    for report in reports:
        for case, outcome, seen in report.bad[: options.show]:
            print(f"\n{report.surface}, case {case}: {outcome}\n{seen}")
    print(f"\nseed {options.seed}, {time.monotonic() - started_s:.0f} s")
    return 1 if any(report.bad for report in reports) else 0


def table(reports: list[Report]) -> str:
    """Of surfaces and what came of their cases."""
    rows = [["surface", "tried", *HEADINGS.values()]]
    rows += [[r.surface, str(r.counts.total()), *(str(r.counts[name]) for name in OUTCOMES)] for r in reports]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


if __name__ == "__main__":
    sys.exit(main())
