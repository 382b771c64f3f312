"""A new task from folders of image files: support in a folder per class; query likewise, or in one flat folder."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from metaray.data.names import check_utf8, is_clutter, one_spelling
from metaray.data.pictures import decode_image
from metaray.errors import InputError


class Labelled(NamedTuple):
    """Images with labels, one for each path.

    Attributes:
        paths: Paths, class by class and in natural order ("2.png" before "10.png").
        labels: Name of the folder that each image lies in, normalised to NFC, since macOS writes other code points.
    """

    paths: list[Path]
    labels: list[str]


def read_support(folder: Path) -> Labelled:
    """List a folder that holds a folder per class. Hidden files and system clutter are skipped, as in an import.

    Raises:
        InputError: If the folder is missing, has no classes, a class without images, files beside the class folders, or
            a file that is not an image.
    """
    return _labelled(folder, "support")


def read_query(folder: Path) -> Labelled | list[Path]:
    """List query images: those of a flat folder, or with their labels if the folder holds class folders.

    A path to an image file is a single query.

    Raises:
        InputError: If the folder is missing or empty, has files beside class folders, or has a file that is not an
            image.
    """
    if folder.is_file():
        _check_image(folder)
        return [folder]
    if any(entry.is_dir() for entry in _entries(folder, "query")):
        return _labelled(folder, "query")
    return _images(folder, "query")


def read_queries(paths: Sequence[Path]) -> Labelled | list[Path]:
    """List query images of several files and folders, in their order, as `read_query` lists those of one.

    Raises:
        InputError: If `read_query` raises it, or only some of the folders hold class folders.
    """
    found = [read_query(path) for path in paths]
    labelled = [one for one in found if isinstance(one, Labelled)]
    flat = [one for one in found if isinstance(one, list)]
    if labelled and flat:
        named = ", ".join(repr(str(path)) for path, one in zip(paths, found, strict=True) if isinstance(one, Labelled))
        raise InputError(f"{named} holds a folder per class, but other queries are images without one; ask separately")
    if flat:
        return [path for one in flat for path in one]
    return Labelled([path for one in labelled for path in one.paths], [name for one in labelled for name in one.labels])


def _labelled(folder: Path, what: str) -> Labelled:
    entries = _entries(folder, what)
    classes = [entry for entry in entries if entry.is_dir()]
    stray = [entry for entry in entries if not entry.is_dir()]
    if not classes:
        raise InputError(f"{what} folder {str(folder)!r} has no class folders; put the images of each class into one")
    if stray:
        raise InputError(f"{str(stray[0])!r} lies beside the class folders of the {what}; put it into one of them")
    found = Labelled([], [])
    for one in classes:
        paths = _images(one, "class")
        found.paths.extend(paths)
        found.labels.extend([one_spelling(one.name)] * len(paths))
    return found


def _images(folder: Path, what: str) -> list[Path]:
    paths = _entries(folder, what)
    if not paths:
        raise InputError(f"{what} folder {str(folder)!r} is empty; put at least one image into it")
    for path in paths:
        if path.is_dir():
            raise InputError(f"{what} folder {str(folder)!r} holds the folder {path.name!r}; only images are expected")
        _check_image(path)
    return paths


def _entries(folder: Path, what: str) -> list[Path]:
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{what} folder {str(folder)!r} {problem}")
    try:
        entries = [path for path in folder.iterdir() if not is_clutter(path.name)]
    except OSError as error:
        raise InputError(f"{what} folder {str(folder)!r} cannot be read: {error.strerror}") from None
    for entry in entries:
        check_utf8(entry.name, f"{what} folder {str(folder)!r}")
    return sorted(entries, key=_natural)


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Numbers in names compare as numbers."""
    parts = re.split(r"([0-9]+)", one_spelling(path.name).casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def _check_image(path: Path) -> None:
    """Decode it whole: a truncated file opens without complaint."""
    where = f"{str(path)!r} is not an image that can be read"
    try:
        decode_image(path.read_bytes(), where)
    except OSError as error:
        raise InputError(f"{where}: {error}") from None
