"""Where the user's own packages are found."""

from pathlib import Path

from metaray.imports import import_from


def import_from_here() -> None:
    """Let the user's own packages be found in the working directory, as those of a recipe are."""
    import_from(Path.cwd())
