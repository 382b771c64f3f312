"""A small table of ratings, for the tests of items: users rate films that others rate, too."""

from pathlib import Path
from typing import Any

import numpy as np

from metaray.data.draws import Split
from metaray.data.group_table import GroupTable
from metaray.data.tables.importing import import_table
from tests.data.patients import Lines, write

GENRES = {"m1": "Comedy|Drama", "m2": "Drama", "m3": "", "m4": "Comedy| War ", "m5": "War"}
SPLITS: dict[Split, list[str]] = {
    "meta-train": [f"u{user}" for user in range(6)],
    "meta-val": ["u6", "u7"],
    "meta-test": ["u8", "u9"],
}


def ratings(users: int = 10, times: int = 2) -> Lines:
    """A header and rows: each user rates films m1 to m4 `times` times, and those of meta-test m5 once, too."""
    generator = np.random.default_rng(0)
    lines = [["user", "film", "genres", "when", "rating"]]
    for user in range(users):
        films = ["m1", "m2", "m3", "m4"] * times + (["m5"] if user > 7 else [])
        for place, film in enumerate(films):
            rating = 2 + int(film[1]) / 2 + 0.3 * user + generator.normal(0, 0.2)
            lines.append([f"u{user}", film, GENRES[film], str(place), f"{rating:.3f}"])
    return lines


def imported(folder: Path, lines: Lines | None = None, **changes: Any) -> GroupTable:
    """The ratings, or other lines, in a file; keyword arguments are those of `import_table`."""
    csv = write(folder / "ratings.csv", ratings() if lines is None else lines)
    options: dict[str, Any] = {
        "tasks": ["user"],
        "target": "rating",
        "item": "film",
        "labels": {"genres": "|"},
        "order_by": "when",
        "splits": SPLITS,
    }
    report = import_table(csv, folder / "ratings.arrow", **options | changes)
    return GroupTable(path=str(report.path), targets="binary" if changes.get("binary") else "regression")
