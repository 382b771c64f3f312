"""`metaray init`: a small project of one's own, which trains, is tuned and tests itself as it is."""

import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from string import Template

from metaray.config import check_name
from metaray.errors import InputError

TEMPLATES = "project_files"
"""Folder of the templates of a project's files, which are text and not code of metaray."""
FILES: Mapping[str, str] = {
    "recipes.py": "recipes.py.txt",
    "models.py": "models.py.txt",
    "tests/test_recipe.py": "tests/test_recipe.py.txt",
    "README.md": "README.md.txt",
    ".gitignore": "gitignore.txt",
}
"""The files of a project, and the template of each."""
MAY_BE_THERE = {".git"}
"""Names of files that may be in a folder that counts as empty."""
SHOWN = 5


def new_project(folder: Path, name: str | None = None) -> list[str]:
    """Write a project into a new or empty folder, whole or not at all.

    Args:
        folder: Path of the project's folder; missing parent folders are made.
        name: Name of the project's experiment and registered model; None takes the name of the folder.

    Returns:
        The paths of the files written, relative to the folder.

    Raises:
        InputError: If the folder is not empty or cannot be written, or the name cannot be that of an experiment.
    """
    found = _entries(folder)
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise InputError(
            f"folder {str(folder)!r} is not empty: it holds {', '.join(found[:SHOWN])}{more}. Name a new folder, or an "
            "empty one"
        )
    texts = _texts(_name(folder, name))
    try:
        _write(folder, texts)
    except OSError as error:
        raise InputError(f"folder {str(folder)!r} cannot be written: {error}") from error
    return list(texts)


def _entries(folder: Path) -> list[str]:
    """What a folder holds that is in the way, sorted.

    Raises:
        InputError: If it is a file, or cannot be read.
    """
    if not folder.exists() and not folder.is_symlink():
        return []
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is there already, and no folder: name a new folder, or an empty one")
    try:
        return sorted({entry.name for entry in folder.iterdir()} - MAY_BE_THERE)
    except OSError as error:
        raise InputError(f"folder {str(folder)!r} cannot be read: {error}") from error


def _name(folder: Path, name: str | None) -> str:
    if name is not None:
        return check_name(name, "--name")
    try:
        return check_name(folder.resolve().name, "experiment name (the folder's)")
    except InputError as error:
        raise InputError(f"{error}. Give another with --name, or name the folder otherwise") from None


def _texts(name: str) -> dict[str, str]:
    """The text of each file of a project."""
    source = files(__package__).joinpath(TEMPLATES)
    return {
        path: Template(source.joinpath(template).read_text(encoding="utf-8")).substitute(name=name)
        for path, template in FILES.items()
    }


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    """Write beside, then move into place: the whole folder if it is new, else what lies directly in it."""
    is_new = not folder.exists()
    parent = folder.absolute().parent
    made = [path for path in (parent, *parent.parents) if not path.exists()] if is_new else []
    parent.mkdir(parents=True, exist_ok=True)
    beside = (parent if is_new else folder) / f".{folder.absolute().name}.{uuid.uuid4().hex}.tmp"
    try:
        for path, text in texts.items():
            (beside / path).parent.mkdir(parents=True, exist_ok=True)
            (beside / path).write_text(text, encoding="utf-8")
        if is_new:
            beside.rename(folder)
        else:
            _move(beside, folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        for empty in made:
            with suppress(OSError):  # somebody else has put something there
                empty.rmdir()
        raise


def _move(beside: Path, folder: Path) -> None:
    """Move all that a folder holds into another, or nothing."""
    moved: list[Path] = []
    try:
        for entry in sorted(beside.iterdir()):
            target = folder / entry.name
            if target.exists():
                raise FileExistsError(f"{target} has come there meanwhile")
            entry.rename(target)
            moved.append(target)
    except BaseException:
        for path in moved:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise
    beside.rmdir()
