"""Folders and zip archives of files, read alike. Nothing is ever extracted to disk."""

import os
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from metaray.errors import InputError

# Far above any image file, far below what a zip bomb needs.
MAX_MEMBER_BYTES = 1 << 28
CLUTTER = {"thumbs.db", "desktop.ini", "__macosx"}


class FileTree(ABC):
    """Files under a root, hidden ones and system clutter left out.

    Attributes:
        path: of the folder or archive.
        names: of the files, relative, with slashes, sorted.
    """

    def __init__(self, path: Path, names: list[str]) -> None:
        self.path = path
        self.names = sorted(name for name in names if not _is_clutter(name))

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of one file. May be called from several threads."""

    def where(self, name: str) -> str:
        """How messages call the file."""
        return str(self.path / name)


class _Folder(FileTree):
    def __init__(self, path: Path) -> None:
        names = []
        for folder, _, files in os.walk(path, followlinks=True):
            if Path(folder).is_symlink() and Path(folder).resolve() in Path(folder).absolute().parents:
                raise InputError(f"{folder}: a symbolic link to a folder that contains it")
            names += [(Path(folder) / file).relative_to(path).as_posix() for file in files]
        super().__init__(path, names)

    def read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise InputError(f"{self.where(name)}: can't be read: {error.strerror}") from None


class _Zip(FileTree):
    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        members = archive.infolist()
        for member in members:
            _check_member(member, path)
        super().__init__(path, [member.filename for member in members if not member.is_dir()])

    def read(self, name: str) -> bytes:
        try:
            return self._archive.read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
            raise InputError(f"{self.where(name)}: can't be read from the archive: {error}") from None


@contextmanager
def open_tree(path: Path) -> Iterator[FileTree]:
    """Open a folder or a zip archive.

    Raises:
        InputError: naming the path: it is missing or neither of the two, or the archive is damaged or has a member
            whose name is absolute or leads out of it with "..".
    """
    if path.is_dir():
        yield _Folder(path)
        return
    if not path.exists():
        raise InputError(f"{path}: no such folder or zip archive")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise InputError(f"{path}: not a folder, and not a readable zip archive: {error}") from None
    with archive:
        yield _Zip(path, archive)


def _check_member(member: zipfile.ZipInfo, path: Path) -> None:
    # Both flavours: a name that is harmless here may lead out of the archive on the machine that made or unpacks it.
    # `orig_filename` because zipfile already rewrites some names.
    for pure in (PurePosixPath(member.orig_filename), PureWindowsPath(member.orig_filename)):
        if pure.is_absolute() or pure.anchor or ".." in pure.parts:
            raise InputError(f"{path}: refused: its member {member.orig_filename!r} leads out of the archive")
    if member.file_size > MAX_MEMBER_BYTES:
        raise InputError(
            f"{path}: refused: its member {member.orig_filename!r} unpacks to {member.file_size} bytes "
            f"(at most {MAX_MEMBER_BYTES})"
        )


def _is_clutter(name: str) -> bool:
    return any(part.startswith(".") or part.lower() in CLUTTER for part in name.split("/"))
