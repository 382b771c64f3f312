"""Example tasks with what was predicted of them, ready to be shown."""

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from metaray.reports.answers import Answer
from metaray.reports.confusion import Labelled
from metaray.reports.facts import Example, Row, Tile

MOST_CLASSES, MOST_SUPPORT, MOST_QUERIES, MOST_ROWS = 20, 3, 4, 12
SIDE = 64
"""Pixels of a picture at most: larger ones would make a page of megabytes."""
MOST_NUMBERS = 8
"""Numbers shown at most of an input that is told in words."""


def example(answer: Answer, title: str, name_of: Callable[[int], str]) -> Example:
    """An episode as it is shown.

    Args:
        answer: The answer to the episode's queries.
        title: Title that says which episode it is, and how it went.
        name_of: The name of a class by its number.
    """
    return _of_classes(answer, title, name_of) if answer.labelled is not None else _of_values(answer, title)


def _of_classes(answer: Answer, title: str, name_of: Callable[[int], str]) -> Example:
    found = answer.labelled
    assert found is not None
    names = [name_of(int(number)) for number in found.classes]
    support, query = answer.task.support, answer.task.query
    rows = []
    for place, name in enumerate(names[:MOST_CLASSES]):
        known = np.flatnonzero(support.y == place)[:MOST_SUPPORT].tolist()
        asked = np.flatnonzero(found.truth == place)[:MOST_QUERIES].tolist()
        rows.append(
            Row(
                name,
                [Tile(*_shown(support.x, at), name) for at in known],
                [Tile(*_shown(query.x, at), name, *_told(found, names, at)) for at in asked],
            )
        )
    shown = sum(len(row.support) + len(row.query) for row in rows)
    return Example(title, rows, _left_out(shown, len(support.y) + len(query.y)))


def _told(found: Labelled, names: Sequence[str], at: int) -> tuple[str, bool]:
    """What was predicted of a query, how surely, and whether it is right."""
    told = int(found.told[at])
    sure, right = f"{found.confidence[at]:.0%}", told == int(found.truth[at])
    return sure if right else f"{names[told]} ({sure})", right


def _of_values(answer: Answer, title: str) -> Example:
    assert answer.truth is not None and answer.values is not None
    support, query = answer.task.support, answer.task.query
    asked = range(min(MOST_ROWS, len(query.y)))
    spread = [""] * len(query.y)
    if answer.spread is not None:
        spread = [f" \u00b1 {_numbers(one)}" for one in answer.spread]
    told = [
        Tile(*_shown(query.x, at), _numbers(answer.truth[at]), _numbers(answer.values[at]) + spread[at]) for at in asked
    ]
    return Example(
        title, [Row("", [], told)], _left_out(len(told), len(query.y), "queries", f"{len(support.y)} support")
    )


def _left_out(shown: int, there: int, what: str = "examples", beside: str = "") -> str:
    more = f"; its {beside} examples are not shown" if beside else ""
    return f"{shown} of its {there} {what} are shown{more}." if shown < there or beside else ""


def _shown(x: Any, at: int) -> tuple[str, str]:
    """An input as a picture, or in words; neither where it is too long."""
    if not isinstance(x, np.ndarray):
        return "", ""
    one = x[at]
    if one.ndim == 3 and one.shape[0] in (1, 3):
        return _picture(one), ""
    return "", _numbers(one) if one.ndim == 1 and len(one) <= MOST_NUMBERS and one.dtype.kind == "f" else ""


def _picture(image: NDArray[Any]) -> Markup:
    """A data URI of a PNG of an image [1 or 3, height, width], uint8 or floats in [0, 1]."""
    pixels = image if image.dtype == np.uint8 else (image.clip(0, 1) * 255).round().astype(np.uint8)
    found = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(np.moveaxis(pixels, 0, -1)))
    if max(found.size) > SIDE:
        found.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    found.save(buffer, format="PNG", optimize=True)
    return Markup(f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}")


def _numbers(values: NDArray[Any]) -> str:
    return ", ".join(f"{float(value):.4g}" for value in np.atleast_1d(values)[:MOST_NUMBERS])
