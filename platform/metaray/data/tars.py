"""Tar archives, plain or compressed, read in place: at most unpacked as a whole into a file without a name."""

import bz2
import gzip
import lzma
import os
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from metaray.data.file_tree import FileTree, Reader, check_size
from metaray.data.names import clean_path, clutter_in, leads_out
from metaray.errors import InputError

COMPRESSIONS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
BLOCK_BYTES = 1 << 20
# Images hardly compress: far more than any archive of them unpacks to.
MOST_UNPACKED_BYTES, MOST_UNPACKED_TIMES = 1 << 30, 100
DAMAGES = (
    tarfile.TarError,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    RecursionError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
)


@contextmanager
def open_tar(path: Path, encoding: str | None) -> Iterator[FileTree]:
    """Open a tar archive, also one compressed with gzip, bzip2 or xz.

    Args:
        path: Path of the archive.
        encoding: Encoding of the names; None means UTF-8.

    Raises:
        InputError: If there is no such archive, it is damaged or cut, or a member is a link or device, too large, or of
            a name that leads out of the archive. The message names the path and the member.
    """
    with tempfile.TemporaryFile() as scratch, path.open("rb") as raw:
        file = _plain(raw, scratch, path)
        try:
            with tarfile.open(fileobj=file, mode="r:", encoding=encoding or "utf-8") as archive:
                members = _members(archive, path)
                _check_end(file, archive.offset, path)
        except InputError:
            raise
        except DAMAGES as error:
            raise InputError(f"{path}: not a folder, and not a readable zip or tar archive: {error}") from None
        files: list[tuple[str, Reader]] = [
            (one.name, partial(_read, file, one.offset_data, one.size, f"{path}/{one.name}"))
            for one in members
            if not one.isdir()
        ]
        yield FileTree(path, files, [one.name for one in members if one.isdir()])


def _plain(raw: IO[bytes], scratch: IO[bytes], path: Path) -> IO[bytes]:
    """The archive without its compression."""
    head = raw.read(6)
    raw.seek(0)
    opener = next((opener for magic, opener in COMPRESSIONS.items() if head.startswith(magic)), None)
    if opener is None:
        return raw
    most = max(MOST_UNPACKED_BYTES, MOST_UNPACKED_TIMES * path.stat().st_size)
    try:
        with opener(raw) as unpacked:
            while block := unpacked.read(BLOCK_BYTES):
                if scratch.tell() + len(block) > most:
                    raise InputError(f"{path}: refused: it unpacks to more than {most} bytes")
                scratch.write(block)
        scratch.flush()
    except InputError:
        raise
    except DAMAGES as error:
        raise InputError(f"{path}: can't be unpacked: {error}") from None
    scratch.seek(0)
    return scratch


def _members(archive: tarfile.TarFile, path: Path) -> list[tarfile.TarInfo]:
    members = []
    for member in archive:
        refused = f"{path}: refused: its member {member.name!r}"
        if member.size < 0:  # before the next one is looked for at a place before this one
            raise InputError(f"{refused} has a size of {member.size} bytes")
        if leads_out(member.name):
            raise InputError(f"{refused} leads out of the archive")
        if clutter_in(clean_path(member.name)) and not member.isreg():
            continue
        if not member.isdir() and (not member.isreg() or member.sparse is not None):
            raise InputError(f"{refused} is a link, a device or a sparse file; pack plain files and folders alone")
        check_size(member.size, f"{path}/{member.name}")
        members.append(member)
    return members


def _check_end(file: IO[bytes], end: int, path: Path) -> None:
    """Check for zeros alone after the last member: tarfile takes damage and the end of a cut archive for its end."""
    file.seek(end)
    block = file.read(BLOCK_BYTES)
    if len(block) < tarfile.BLOCKSIZE:
        raise InputError(f"{path}: a tar archive without its end: it is cut")
    while block:
        if block.strip(b"\0"):
            raise InputError(f"{path}: a damaged tar archive, or several in one file: more follows its end")
        block = file.read(BLOCK_BYTES)


def _read(file: IO[bytes], start: int, size: int, where: str) -> bytes:
    try:
        content = os.pread(file.fileno(), size, start)
    except OSError as error:
        raise InputError(f"{where}: can't be read from the archive: {error.strerror}") from None
    if len(content) < size:
        raise InputError(f"{where}: can't be read from the archive: it is cut")
    return content
