"""Tables on standard output."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Where nobody watches, no row is cut or wrapped, however long a path or a class name is.
UNLIMITED = 100_000


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows of plain text under column names: with lines on a terminal, as bare columns elsewhere."""
    console, table = make_table(columns, rows)
    console.print(table)


def make_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, tight: bool = False
) -> "tuple[Console, Table]":
    """The table that `print_table` prints (`tight`: without lines between columns), and its console."""
    from rich.box import HEAVY_HEAD, SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=UNLIMITED)
    box = (SIMPLE_HEAD if tight else HEAVY_HEAD) if console.is_terminal else None
    table = Table(*columns, box=box, pad_edge=False, padding=(0, 1, 0, 0 if tight else 1))
    for row in rows:
        # As Text: a class called "[red]" is no markup.
        table.add_row(*(Text(one_line(cell)) for cell in row))
    return console, table


def one_line(text: str) -> str:
    """The text with control characters, such as line breaks in file names, escaped."""
    unseen = ("Cc", "Cs", "Zl", "Zp")
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in unseen else c for c in text)
