"""How series and verdicts are told from each other in pictures: by colour, and by marker, line or sign besides.

The six colours are far apart for people with any of the three kinds of colour blindness too, and each stands out from
white paper; `tests/reports/test_colours.py` holds both to numbers. Reports take the same ones, and others on black: see
`metaray/reports/page.css`.
"""

from typing import Any, NamedTuple

SERIES = ("#1d5179", "#df6612", "#2da294", "#c96dd0", "#98955e", "#5f4d39")
INK, MUTED = "#1c2127", "#5b6672"
RIGHT, WRONG = "#00664b", "#a63f00"
CROSS = "\u2717"
"""Stands before what is wrong."""


class Mark(NamedTuple):
    """How a series is told from others without colour."""

    marker: str
    linestyle: Any


MARKS = tuple(
    Mark(marker, linestyle)
    for marker, linestyle in (
        ("o", "-"),
        ("s", "--"),
        ("^", "-."),
        ("D", ":"),
        ("v", (0, (5, 1))),
        ("P", (0, (1, 1))),
    )
)


def line_of(place: int) -> dict[str, Any]:
    """Colour, marker and line of the series at a place, as matplotlib takes them; thirty-six of them differ."""
    turn, at = divmod(place, len(SERIES))
    mark = MARKS[(at + turn) % len(MARKS)]
    return {"color": SERIES[at], "marker": mark.marker, "linestyle": mark.linestyle}
