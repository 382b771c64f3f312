"""Names of files and folders, as systems and people write them."""

import unicodedata
from pathlib import PurePosixPath, PureWindowsPath
from posixpath import splitext

from metaray.errors import InputError

# What file managers, archivers and network drives leave beside people's files; compared without case.
CLUTTER = {
    "$recycle.bin",
    "@eadir",
    "__macosx",
    "desktop.ini",
    "ehthumbs.db",
    "icon\r",
    "system volume information",
    "thumbs.db",
}
IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
    | {".dds", ".dib", ".ico", ".j2k", ".pbm", ".pcx", ".pgm", ".pnm", ".ppm", ".psd", ".ras", ".sgi", ".tga", ".xpm"}
)


def is_clutter(name: str) -> bool:
    """Whether a file or folder of this name (without slashes) is hidden, or system clutter, and none of the user's."""
    return name.startswith(".") or name.lower() in CLUTTER


def clutter_in(path: str) -> str:
    """A clean path up to its first part that is clutter; empty if none is."""
    parts = path.split("/")
    for i, part in enumerate(parts):
        if is_clutter(part):
            return "/".join(parts[: i + 1])
    return ""


def clean_path(path: str) -> str:
    """The path in one spelling, without "." and empty parts, as in the output of `tar cf x.tar .`."""
    return "/".join(part for part in one_spelling(path).split("/") if part not in ("", "."))


def is_image_name(name: str) -> bool:
    """Whether a file name has the suffix of an image format."""
    return splitext(name)[1].lower() in IMAGE_SUFFIXES


def one_spelling(name: str) -> str:
    """The name in Unicode's form NFC: macOS writes the same letters as others do, but in other code points."""
    return unicodedata.normalize("NFC", name)


def leads_out(name: str) -> bool:
    """Whether a path is absolute or holds "..", for Unix or for Windows.

    Both, because a name that is harmless here may lead out of its folder on the machine that made or unpacks it.
    """
    flavours = (PurePosixPath(name), PureWindowsPath(name))
    return any(pure.anchor or ".." in pure.parts for pure in flavours)


def check_characters(name: str, where: str) -> None:
    """Check that a name can be written in a line of text.

    Raises:
        InputError: If it contains control characters (such as a line break) or bytes that are not UTF-8; the message
            names `where`.
    """
    if name.isprintable():  # almost every name, and fast
        return
    check_utf8(name, where)
    for character in name:
        if unicodedata.category(character) in ("Cc", "Zl", "Zp"):
            raise InputError(f"{where}: the name {name!r} holds the control character {character!r}; rename it")


def check_utf8(name: str, where: str) -> None:
    """Check that the bytes of a name are UTF-8; Python represents others as lone surrogates.

    Raises:
        InputError: If they are not; the message names `where`.
    """
    if any(unicodedata.category(character) == "Cs" for character in name):
        raise InputError(f"{where}: the name {name!r} is not in UTF-8; rename it, or (in archives) give --encoding")


def counted(count: int, one: str, many: str = "") -> str:
    """A number with its noun, as in "1 file", "2 files"."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def some(names: list[str], most: int = 3) -> str:
    """The first few names, as messages list them."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
