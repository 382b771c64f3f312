"""Sizes, times and wrapped lines for people to read."""

import textwrap

from metaray.cli.keys import terminal_width
from metaray.displays.table import one_line

MEGABYTE = 10**6
UNITS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))


def size_text(size_bytes: int) -> str:
    """The size in words, as in "12.5 MB"."""
    if size_bytes < MEGABYTE:
        return f"{size_bytes / 1000:.3g} kB"
    return f"{size_bytes / MEGABYTE:.3g} MB" if size_bytes < 1000 * MEGABYTE else f"{size_bytes / 10**9:.3g} GB"


def duration_text(seconds: float) -> str:
    """The time in words, as in "90 s", "3 min", "5 h" or "4 d": never less than two of a unit, but of the smallest."""
    for length, unit in UNITS:
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def wrapped(text: str, *, indent: str = "    ") -> list[str]:
    """A line of text as the terminal shows it, further lines indented; one line where nobody watches."""
    return textwrap.wrap(one_line(text), terminal_width(), subsequent_indent=indent, break_on_hyphens=False)
