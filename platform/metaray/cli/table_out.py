"""The table by episode as a CSV file of the user's."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaray.errors import InputError

if TYPE_CHECKING:
    from metaray.records.judged import Judged
    from metaray.records.stream import StreamCurve

TableOut = Annotated[
    Path | None,
    typer.Option(
        "--table",
        metavar="FILE",
        help="Also write how each episode went, as CSV: group, sizes, and each score of the learner and of what stands "
        "beside it; or of a stream, each order.",
    ),
]


def require_place(path: Path | None) -> None:
    """Refuse a file that cannot be written, before there is anything to write.

    Raises:
        InputError: If it cannot; the message says why.
    """
    if path is None:
        return
    if path.is_dir():
        raise InputError(f"--table {path} is a folder; name a file")
    if not path.parent.is_dir():
        raise InputError(f"--table {path}: there is no folder {path.parent}")


def write_table(judged: "Judged | StreamCurve", path: Path) -> None:
    """Write it whole, or nothing.

    Raises:
        InputError: If that fails.
    """
    beside = path.with_name(f".{path.name}.tmp")
    try:
        beside.write_text(judged.csv(), encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise InputError(f"--table {path}: cannot be written: {error}") from None
    finally:
        beside.unlink(missing_ok=True)
