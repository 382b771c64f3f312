"""`metaray init`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The project's folder: a new one, or an empty one.")],
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Name of its experiment and of the model it registers; by default the folder's."
        ),
    ] = None,
) -> None:
    """Write a small project of your own: a recipe, a network, a test of both, and a README with the commands."""
    from metaray.api.new_project import new_project

    for path in new_project(folder, name):
        print(folder / path)
    where = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))} && "
    print(f"next: {where}metaray show recipes.py:letters; README.md has the rest, in order")
