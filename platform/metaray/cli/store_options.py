"""What the importers of all kinds of stores take."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from metaray.errors import InputError

Out = Annotated[Path, typer.Option(metavar="FILE", help="The store file to write.")]
Seed = Annotated[
    int, typer.Option(min=0, metavar="N", help="Seed of the random assignment of classes or groups to splits.")
]


def splits_of(text: str) -> Path | tuple[float, float, float]:
    """Three fractions, or a folder.

    Raises:
        InputError: If it is three things that are no numbers.
    """
    parts = text.split(",")
    if len(parts) != 3:
        return Path(text)
    try:
        train, val, test = (float(part) for part in parts)
    except ValueError:
        raise InputError(f"--splits {text!r}: give three fractions such as 0.64,0.16,0.2, or a folder") from None
    return train, val, test


@contextmanager
def import_progress() -> Iterator[tuple[Callable[[int, int], None], Callable[[str], None]]]:
    """A bar on standard error while an import reads, and what writes a line above it."""
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading", total=None)
        yield (
            lambda done, total: progress.update(task, completed=done, total=total),
            lambda line: console.print(Text(line), soft_wrap=True),  # as Text: a class called "[red]" is no markup
        )
