"""`metaray evaluate --stream`: the curve as lines, as JSON, as a table, as a picture."""

from pathlib import Path
from typing import Any

from metaray.cli import show
from metaray.cli.table_out import write_table


def judge_stream(
    model: str, classes: str, *, table: Path | None, picture: Path | None, as_json: bool, **options: Any
) -> None:
    """Judge a learner on a stream, and write what is asked for.

    Args:
        model: The learner: URI or folder.
        classes: Numbers of classes, as the user wrote them.
        table: CSV file to write.
        picture: PNG file to draw.
        as_json: Print JSON.
        options: The rest of `metaray.api.stream.stream`.

    Raises:
        InputError: If `metaray.api.stream.stream` refuses the call, or a file can't be written.
    """
    from metaray.api.stream import stream
    from metaray.data.store_file import check_writable

    if picture is not None:
        check_writable(picture)
    curve = stream(model, classes, **options)
    if table is not None:
        write_table(curve, table)
    if picture is not None:
        from metaray.plots.stream import draw_stream

        draw_stream({"learner": curve}, picture, model)
    show.result(curve, as_json=as_json)
