"""Tables on standard output."""

import unicodedata
from collections.abc import Iterable, Sequence

# Where nobody watches, no row is cut or wrapped, however long a path or a class name is.
UNLIMITED = 100_000


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows of plain text under their columns' names: with lines on a terminal, bare columns elsewhere."""
    from rich.box import HEAVY_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=UNLIMITED)
    table = Table(*columns, box=HEAVY_HEAD if console.is_terminal else None, pad_edge=False)
    for row in rows:
        # As Text: a class called "[red]" is no markup.
        table.add_row(*(Text(one_line(cell)) for cell in row))
    console.print(table)


def one_line(text: str) -> str:
    """With control characters (a line break in a file's name, say) as their escapes."""
    unseen = ("Cc", "Cs", "Zl", "Zp")
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in unseen else c for c in text)
