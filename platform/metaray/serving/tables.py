"""A new regression task from CSV files: a row an example, with the columns x and y (or x0, x1, ..., y0, ...)."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaray.errors import InputError, unknown
from metaray.serving.columns import feature_names, inputs, number, target_names

if TYPE_CHECKING:
    from metaray.learners.learner import Learner


class Points(NamedTuple):
    """Inputs and targets that go together.

    Attributes:
        x: [n, *feature].
        y: [n, target_size]; None where they are not known.
        names: of the columns of inputs and targets.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64] | None
    names: tuple[str, ...] = ()


def is_table(path: Path) -> bool:
    """Whether a path is for `read_points`, not a folder of images; what is not there is told by its name."""
    return path.is_file() or (not path.exists() and path.suffix.lower() == ".csv")


def read_points(
    path: Path, learner: "Learner", *, targets: bool, x: Sequence[str] = (), y: Sequence[str] = ()
) -> Points:
    """Read a CSV file with a header.

    Args:
        path: of the file.
        learner: whose columns it must have.
        targets: whether it must have those of the targets; else it may.
        x: the columns of the inputs, in the order that the learner takes them; x, or x0, x1, ... if left out.
        y: the columns of the targets, likewise. Where either is given, the file may have more columns.

    Raises:
        InputError: for names that are not as many as the learner's numbers, a missing file or column, one that the
            learner does not know, no rows, or a cell that holds no finite number; naming the line.
    """
    if learner.task.target_size_told is None:
        raise InputError(
            f"{str(path)!r} is no folder, but a {learner.algorithm.kind} learner of classes takes a folder "
            "with a folder of images per class"
        )
    features = _named("--x", x, feature_names(learner))
    wanted = _named("--y", y, target_names(learner))
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restkey="", strict=True, skipinitialspace=True)
            header = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = header
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{str(path)!r} cannot be read as a CSV file: {error}") from None
    has_targets = targets or any(name in header for name in wanted)
    columns = [*features, *(wanted if has_targets else ())]
    _check_header(path, header, columns, known=[*header, *columns] if x or y else [*features, *wanted])
    if not rows:
        raise InputError(f"{str(path)!r} has no rows below its header {','.join(header)!r}")
    cells = np.array([_numbers(row, columns, f"{path}, line {line}") for line, row in rows])
    found = inputs(cells[:, : len(features)], learner), cells[:, len(features) :] if has_targets else None
    return Points(*found, (*features, *wanted))


def read_tables(paths: Sequence[Path], learner: "Learner", *, x: Sequence[str] = (), y: Sequence[str] = ()) -> Points:
    """Queries from several CSV files, one after the other; targets where all have them.

    Raises:
        InputError: as `read_points`.
    """
    found = [read_points(path, learner, targets=False, x=x, y=y) for path in paths]
    targets = [one.y for one in found if one.y is not None]
    values = np.concatenate(targets) if len(targets) == len(found) else None
    return Points(np.concatenate([one.x for one in found]), values, found[0].names)


def split_names(text: str | None) -> list[str]:
    """Names with commas between, as in the first line of a CSV file."""
    return [name.strip() for name in next(csv.reader([text]), [])] if text else []


def require_classes(learner: "Learner") -> None:
    """Refuse folders of images for a learner of numbers.

    Raises:
        InputError: saying what it takes.
    """
    if learner.task.target_size_told is not None:
        columns = ",".join([*feature_names(learner), *target_names(learner)])
        raise InputError(
            f"a learner of numbers takes no folders: give CSV files with the columns {columns} as --support and "
            "--query, or call learner.adapt(x, y) in Python"
        )


def _named(option: str, given: Sequence[str], default: list[str]) -> list[str]:
    """The columns that a user names, or else the learner's own."""
    if given and len(given) != len(default):
        listed = ",".join(given)
        count = f"{len(given)} column{'' if len(given) == 1 else 's'}"
        raise InputError(f"{option} {listed!r} names {count}, but this learner has {len(default)}: {','.join(default)}")
    return list(given) or default


def _check_header(path: Path, header: Sequence[str], needed: Sequence[str], *, known: Sequence[str]) -> None:
    missing = [name for name in needed if name not in header]
    if missing:
        raise InputError(
            f"{str(path)!r} lacks the column {missing[0]!r}; its first line is {','.join(header)!r}; --x and --y say "
            "which of its columns are inputs and targets"
        )
    for name in header:
        if name not in known:
            raise unknown(f"column of {path}", name, known)
        if header.count(name) > 1:
            raise InputError(f"{str(path)!r} has the column {name!r} {header.count(name)} times")


def _numbers(row: dict[str, str], columns: Sequence[str], where: str) -> list[float]:
    if "" in row:
        raise InputError(f"{where}: more cells than columns")
    return [number(row[name] if row[name] is not None else "", name, where) for name in columns]
