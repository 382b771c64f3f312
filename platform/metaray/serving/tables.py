"""A new task from CSV files: a row an example, with the columns of the inputs (x, or x0, x1, ..., or what else the
preprocessing says) and of the targets: label, or y (or y0, ...) where they are values."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from metaray.data.tables.notation import Decimal, comma_hint, delimiter_of, with_point
from metaray.data.text_encoding import long_cells
from metaray.errors import InputError, unknown
from metaray.serving.columns import Column, target_names

if TYPE_CHECKING:
    from metaray.learners.learner import Learner


class Points(NamedTuple):
    """Inputs and targets read from a table.

    Attributes:
        x: Inputs [n] as the learner's preprocessing reads them: numbers [n, *feature], or a list of texts.
        y: Targets: values [n, target_size], or labels [n]; None if they are unknown.
        names: Names of the columns of inputs and targets.
        cells: Cells [n] of the inputs as in the file.
    """

    x: Any
    y: Any
    names: tuple[str, ...] = ()
    cells: tuple[tuple[str, ...], ...] = ()


def is_table(path: Path) -> bool:
    """Whether a path is a table for `read_points`, not a folder of images; a missing file is judged by its name."""
    return path.is_file() or (not path.exists() and path.suffix.lower() == ".csv")


def read_points(
    path: Path,
    learner: "Learner",
    *,
    targets: bool,
    x: Sequence[str] = (),
    y: Sequence[str] = (),
    decimal: Decimal = ".",
) -> Points:
    """Read a CSV file with a header, whose cells are separated by commas, semicolons or tabs.

    Args:
        path: Path of the file.
        learner: Learner whose columns the file must have.
        targets: Whether target columns are required; otherwise they are optional.
        x: Names of the input columns, in the order in which the learner takes them; None takes the preprocessing's.
        y: Names of the target columns, likewise. If `x` or `y` is given, the file may have further columns.
        decimal: Decimal mark of the numbers.

    Raises:
        InputError: If the names do not match the learner's numbers of columns, the file or a column is missing, the
            learner does not know a column, there are no rows, or a cell holds no finite number, text or label; the
            message names the line.
    """
    if learner.preprocessing.takes_folders:
        raise InputError(
            f"{str(path)!r} is no folder, but a {learner.algorithm.kind} learner of classes takes a folder "
            f"with a folder of {learner.preprocessing.input_word}s per class"
        )
    features = _named("--x", x, [column.name for column in learner.preprocessing.columns])
    wanted = _named("--y", y, target_names(learner))
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            delimiter = delimiter_of(file.readline())
            file.seek(0)
            reader = csv.DictReader(file, restkey="", strict=True, skipinitialspace=True, delimiter=delimiter)
            header = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = header
            with long_cells():
                rows = [(reader.line_num, row) for row in reader]
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r} cannot be read as a CSV file in UTF-8, which it must be: {error}") from None
    except (OSError, csv.Error) as error:
        raise InputError(f"{str(path)!r} cannot be read as a CSV file: {error}") from None
    has_targets = targets or any(name in header for name in wanted)
    columns = [*features, *(wanted if has_targets else ())]
    _check_header(path, header, columns, known=[*header, *columns] if x or y else [*features, *wanted])
    if not rows:
        raise InputError(f"{str(path)!r} has no rows below its header {','.join(header)!r}")
    for line, row in rows:
        if "" in row:
            raise InputError(f"{path}, line {line}: more cells than columns")
    where = lambda i: f"{path}, line {rows[i][0]}"  # noqa: E731
    cells = [tuple(row[name] or "" for name in features) for _, row in rows]
    inputs, aims = learner.preprocessing.columns, learner.task.target_columns()
    found = learner.preprocessing.from_cells(_with_points(cells, features, inputs, decimal, where), features, where)
    known = [[(row[name] or "").strip() for name in wanted] for _, row in rows] if has_targets else None
    known = None if known is None else _with_points(known, wanted, aims, decimal, where)
    targets_found = None if known is None else learner.task.from_cells(known, wanted, where)
    return Points(found, targets_found, (*features, *wanted), tuple(cells))


def read_tables(
    paths: Sequence[Path],
    learner: "Learner",
    *,
    x: Sequence[str] = (),
    y: Sequence[str] = (),
    decimal: Decimal = ".",
) -> Points:
    """Read queries from several CSV files, one after the other, with targets if all files have them.

    Raises:
        InputError: If `read_points` raises it.
    """
    found = [read_points(path, learner, targets=False, x=x, y=y, decimal=decimal) for path in paths]
    targets = [one.y for one in found if one.y is not None]
    values = _joined(targets) if len(targets) == len(found) else None
    return Points(_joined([one.x for one in found]), values, found[0].names, sum((one.cells for one in found), ()))


def split_names(text: str | None) -> list[str]:
    """Names with commas between, as in the first line of a CSV file."""
    return [name.strip() for name in next(csv.reader([text]), [])] if text else []


def require_folders(learner: "Learner") -> None:
    """Check that a learner takes image folders, not rows of tables.

    Raises:
        InputError: If it does not; the message says what it takes.
    """
    inputs = learner.preprocessing
    if not inputs.takes_folders:
        columns = ",".join([*(column.name for column in inputs.columns), *target_names(learner)])
        what = "numbers" if all(column.type == "double" for column in inputs.columns) else f"{inputs.input_word}s"
        raise InputError(
            f"a learner of {what} takes no folders: give CSV files with the columns {columns} as --support and "
            "--query, or call learner.adapt(x, y) in Python"
        )


def _with_points(
    cells: Sequence[Sequence[str]],
    names: Sequence[str],
    columns: Sequence[Column],
    decimal: Decimal,
    where: Callable[[int], str],
) -> list[list[str]]:
    """The cells, their numbers as Python writes them."""
    numeric = [column.type == "double" for column in columns]
    for i, row in enumerate(cells):
        for cell, name, is_number in zip(row, names, numeric, strict=True):
            if is_number and (hint := comma_hint(cell, decimal)):
                raise InputError(f"{where(i)}: {name} is {cell!r}, not a number{hint}")
    return [
        [with_point(cell, decimal) if is_number else cell for cell, is_number in zip(row, numeric, strict=True)]
        for row in cells
    ]


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


def _joined(parts: Sequence[Any]) -> Any:
    """Arrays or lists, one after the other."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return [one for part in parts for one in part]
