"""Where the user's own packages are found."""

from pathlib import Path


def import_from_here() -> None:
    """Let the user's own packages be found in the working directory, as those of a recipe are."""
    from metaray.imports import import_from  # here, so that --help needs no pydantic

    import_from(Path.cwd())
