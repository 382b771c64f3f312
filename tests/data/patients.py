"""A small table of patients, for the tests of tables."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from metaray.data.draws import Split
from metaray.data.group_table import GroupTable
from metaray.data.tables.importing import import_table

Lines = list[list[str]]


def patients(groups: int = 9, rows: int = 8, *, binary: bool = False) -> Lines:
    """A header and rows: group p3 has so many rows that p0 has 3 fewer; ages may be missing, colours are categories."""
    generator = np.random.default_rng(0)
    lines = [["patient", "day", "age", "dose", "colour", "score"]]
    for group in range(groups):
        for row in range(rows - 3 * (group == 0)):
            age = "" if row == 1 else f"{generator.normal(50, 10):.3f}"
            score = str(row % 2) if binary else f"{generator.normal(20 + group, 2):.4f}"
            day = str(100 - row)
            lines.append([f"p{group}", day, age, f"{generator.normal():.4f}", ["red", "blue"][row % 2], score])
    return lines


def write(path: Path, lines: Lines) -> Path:
    """As a CSV file."""
    path.write_text("".join(",".join(line) + "\n" for line in lines))
    return path


SPLITS: dict[Split, list[str]] = {
    "meta-train": ["p0", "p1", "p2", "p3", "p4"],
    "meta-val": ["p5", "p6"],
    "meta-test": ["p7", "p8"],
}

MakeTable = Callable[..., GroupTable]


def made_table(folder: Path, lines: Lines | None = None, **changes: Any) -> GroupTable:
    """The patients, or other lines, imported into a folder; keyword arguments are those of `import_table`."""
    binary = bool(changes.get("binary"))
    csv = write(folder / "patients.csv", patients(binary=binary) if lines is None else lines)
    left_out = [] if changes.get("order_by") == "day" else ["day"]
    options: dict[str, Any] = {"tasks": ["patient"], "target": "score", "leave_out": left_out, "splits": SPLITS}
    report = import_table(csv, folder / "patients.arrow", **options | changes)
    return GroupTable(path=str(report.path), targets="binary" if binary else "regression")
