"""Zip archives, read in place: nothing is extracted to disk."""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from metaray.data.file_tree import FileTree, Reader, check_size
from metaray.data.names import clean_path, clutter_in, counted, leads_out
from metaray.errors import InputError

UTF8_FLAG, ENCRYPTED_FLAG = 0x800, 0x1
UNICODE_PATH = 0x7075
# The zip format's own encoding of names that are not marked as UTF-8.
FORMER = "cp437"


@contextmanager
def open_zip(path: Path, encoding: str | None) -> Iterator[FileTree]:
    """Open a zip archive.

    Args:
        path: Path of the archive.
        encoding: Encoding of the names that are not marked as UTF-8; None tries UTF-8 and falls back on cp437, with a
            note.

    Raises:
        InputError: If it is damaged, or a member is encrypted, a link, too large, overlapping others, or of a name that
            leads out of the archive or cannot be told. The message names the path and the member.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise InputError(f"{path}: not a folder, and not a readable zip or tar archive: {error}") from None
    with archive:
        members = archive.infolist()
        if sum(member.compress_size for member in members) > path.stat().st_size:
            raise InputError(f"{path}: refused: its members overlap, as those of a zip bomb do")
        names, notes = _names(members, path, encoding)
        files: list[tuple[str, Reader]] = []
        for member, name in zip(members, names, strict=True):
            if not name.endswith("/"):
                _check(member, name, path)
                files.append((name, partial(_read, archive, member, f"{path}/{name}")))
        folders = [name for name in names if name.endswith("/")]
        yield FileTree(path, files, folders, notes)


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> bytes:
    try:
        return archive.read(member)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        RuntimeError,
        NotImplementedError,
        ValueError,
        struct.error,
    ) as error:
        raise InputError(f"{where}: can't be read from the archive: {error}") from None


def _check(member: zipfile.ZipInfo, name: str, path: Path) -> None:
    if clutter_in(clean_path(name)):
        return
    refused = f"{path}: refused: its member {name!r}"
    if member.flag_bits & ENCRYPTED_FLAG:
        raise InputError(f"{refused} is encrypted; unpack the archive first")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise InputError(f"{refused} is a symbolic link; pack the file itself")
    check_size(member.file_size, f"{path}/{name}")


def _names(members: Sequence[zipfile.ZipInfo], path: Path, encoding: str | None) -> tuple[list[str], tuple[str, ...]]:
    """The members' names, with slashes; and a note on those that were guessed."""
    names, guesses = [], []
    for member in members:
        name, guessed = _decoded(member, path, encoding)
        if leads_out(name):
            raise InputError(f"{path}: refused: its member {name!r} leads out of the archive")
        if guessed and "\\" in name:
            # In Japanese and Chinese encodings a backslash may be half of a letter.
            raise InputError(
                f"{path}: the name {name!r} is not in UTF-8, and holds a backslash or half of a letter; "
                "give --encoding, for instance --encoding cp932"
            )
        names.append(name.replace("\\", "/"))
        guesses += [name] if guessed else []
    if not guesses:
        return names, ()
    note = (
        f"{counted(len(guesses), 'name')} in the archive not in UTF-8, read as {FORMER}, for instance "
        f"{guesses[0]!r}; if that is wrong, give --encoding, for instance --encoding cp1252"
    )
    return names, (note,)


def _decoded(member: zipfile.ZipInfo, path: Path, encoding: str | None) -> tuple[str, bool]:
    """The name, and whether it was read as cp437 for want of anything better."""
    name = member.orig_filename
    if "\0" in name:
        raise InputError(f"{path}: refused: its member {name!r} has a NUL in its name")
    if member.flag_bits & UTF8_FLAG:
        return name, False
    raw = name.encode(FORMER)
    if unicode_path := _unicode_path(member, raw):
        return unicode_path, False
    try:
        return raw.decode(encoding or "utf-8"), False
    except UnicodeDecodeError:
        if encoding is not None:
            raise InputError(f"{path}: the name {raw!r} is not in the encoding {encoding!r}") from None
        return name, True


def _unicode_path(member: zipfile.ZipInfo, raw: bytes) -> str:
    """The name in the extra field that Info-ZIP and WinRAR write; empty where there is none that fits."""
    extra = member.extra
    while len(extra) >= 4:
        kind, length = struct.unpack("<HH", extra[:4])
        value, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == UNICODE_PATH and len(value) > 5 and struct.unpack("<BL", value[:5]) == (1, zlib.crc32(raw)):
            return value[5:].decode(errors="replace")
    return ""
