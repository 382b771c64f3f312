"""Where a run keeps its files: a local folder or a URI, through pyarrow's filesystems."""

import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from pyarrow import ArrowException, ArrowInvalid, fs

from metaray.errors import InputError, redacted, shareable
from metaray.file_lock import is_locked, lock
from metaray.uris import Uri

UNFINISHED = ".tmp"
AS_THEY_ARE = None
"""Compression setting of pyarrow that keeps bytes unchanged; by default it unpacks and packs files named `.gz`."""
GLANCE_S = 0.05
"""Seconds after which a process that only looked at a lock has released it."""


class StoredFile(NamedTuple):
    """A file in a storage: its path from the root, its size, and its time in seconds since the epoch."""

    name: str
    size_bytes: int
    changed_s: float


class Storage:
    """Small files under one root, each written completely or not at all.

    Args:
        root: A local folder (made absolute, since Ray workers change directory) or a URI such as `s3://bucket/runs`.

    Raises:
        InputError: If the root cannot be reached, or holds a password.
    """

    def __init__(self, root: str) -> None:
        if Uri.parse(root).has_secret:
            # Ray shows what workers are given, and the storage is part of that.
            raise InputError(
                f"storage {redacted(root)!r} holds a credential: leave it out, and set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY (or what your store reads) in the environment of every node"
            )
        self.root = root if "://" in root else str(Path(root).expanduser().absolute())
        try:
            self._fs, self._base = fs.FileSystem.from_uri(self.root)
        except (ArrowException, OSError, ValueError) as error:
            raise InputError(f"storage {redacted(root)!r} cannot be opened: {redacted(str(error))}") from shareable(
                error
            )
        self.is_local = isinstance(self._fs, fs.LocalFileSystem)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Storage) and self.root == other.root

    def __hash__(self) -> int:
        return hash(self.root)

    @property
    def shown(self) -> str:
        """The root for messages, without passwords."""
        return redacted(self.root)

    @property
    def local_folder(self) -> Path:
        """The root as a path, if it is a local folder."""
        assert self.is_local
        return Path(self._base)

    def child(self, name: str) -> "Storage":
        """The storage of a folder below the root."""
        # Options of a URI, as in s3://bucket/runs?region=eu-west-1, stay at its end.
        place, mark, options = self.root.partition("?") if "://" in self.root else (self.root, "", "")
        return Storage(f"{place.rstrip('/')}/{name}{mark}{options}")

    @property
    def parent(self) -> "Storage":
        """The storage that this one is a `child` of."""
        place, mark, options = self.root.partition("?") if "://" in self.root else (self.root, "", "")
        return Storage(f"{place.rstrip('/').rpartition('/')[0] or '/'}{mark}{options}")

    def check_writable(self) -> None:
        """Check that files can be written, by writing and removing a probe.

        Raises:
            InputError: If they cannot.
        """
        name = f".probe-{uuid.uuid4().hex}"
        made = [] if not self.is_local else [p for p in (Path(self._base), *Path(self._base).parents) if not p.exists()]
        try:
            self.write(name, b"probe")
            self._fs.delete_file(self._path(name))
            for folder in made:
                folder.rmdir()
        except (OSError, ArrowInvalid) as error:
            raise InputError(f"storage {self.shown!r} is not writable: {error}") from error

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically: beside its place, flushed to disk, then renamed; object stores are atomic by nature.

        Raises:
            OSError: If the file cannot be written, for instance because the disk is full; nothing of it remains.
        """
        path = self._path(name)
        if not self.is_local:
            with self._fs.open_output_stream(path, compression=AS_THEY_ARE) as stream:
                stream.write(data)
            return
        final = Path(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        beside = final.with_name(f".{final.name}.{uuid.uuid4().hex}{UNFINISHED}")
        try:
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(final)
        finally:
            beside.unlink(missing_ok=True)
        folder = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the renaming, too, must outlive a power cut
        finally:
            os.close(folder)

    def read(self, name: str) -> bytes:
        """Read the bytes of a file.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        with self._fs.open_input_stream(self._path(name), compression=AS_THEY_ARE) as stream:
            data: bytes = stream.readall()
        return data

    def exists(self, name: str) -> bool:
        """Whether there is a file with this name."""
        info = self._fs.get_file_info(self._path(name))
        return bool(info.type == fs.FileType.File)

    def names(self, folder: str = "") -> list[str]:
        """Names of files and folders directly below `folder`, sorted; empty if it does not exist."""
        selector = fs.FileSelector(self._path(folder), allow_not_found=True)
        try:
            return sorted(info.base_name for info in self._fs.get_file_info(selector))
        except FileNotFoundError:  # it went between two looks of pyarrow's
            return []

    def folders(self) -> list[str]:
        """Names of the folders directly below the root, sorted; empty if it does not exist."""
        selector = fs.FileSelector(self._path(""), allow_not_found=True)
        try:
            found = self._fs.get_file_info(selector)
        except FileNotFoundError:  # as in `names`
            return []
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    def files(self, folder: str = "") -> list[StoredFile]:
        """All files below `folder`, at any depth, sorted; empty if it does not exist."""
        base = self._path("").rstrip("/") + "/"
        selector = fs.FileSelector(self._path(folder), allow_not_found=True, recursive=True)
        try:
            found = [info for info in self._fs.get_file_info(selector) if info.type == fs.FileType.File]
        except FileNotFoundError:  # as in `names`
            return []
        return sorted(
            StoredFile(info.path.removeprefix(base), info.size or 0, (info.mtime_ns or 0) / 1e9) for info in found
        )

    def delete_file(self, name: str) -> None:
        """Delete a file.

        Raises:
            OSError: If the file cannot be deleted, for instance because it does not exist.
        """
        self._fs.delete_file(self._path(name))

    def delete_folder(self, folder: str) -> None:
        """Delete a folder and everything below it."""
        self._fs.delete_dir(self._path(folder))

    def discard(self, folder: str) -> None:
        """Delete a folder, moving it out of the way first, so that an interruption leaves no part that looks whole.

        Raises:
            OSError: If the folder cannot be deleted.
        """
        if not self.is_local:
            self.delete_folder(folder)
            return
        path = Path(self._path(folder))
        away = path.with_name(f".{path.name}.{uuid.uuid4().hex}{UNFINISHED}")
        path.rename(away)
        if away.is_symlink():
            away.unlink()  # what it leads to is not ours
        else:
            shutil.rmtree(away)

    def unfinished(self) -> list[str]:
        """The temporary files of writes that broke off, however deep. Object stores have none."""
        if not self.is_local:
            return []
        found = sorted(Path(self._base).rglob(f".*{UNFINISHED}"))
        return [str(path.relative_to(self._base)) for path in found if path.is_file()]

    def delete_unfinished(self) -> list[str]:
        """Delete the temporary files of interrupted writes; returns their names."""
        found = self.unfinished()
        for name in found:
            Path(self._path(name)).unlink(missing_ok=True)
        return found

    def holder(self, name: str) -> str | None:
        """Description of the process that holds the lock of file `name`; None if none does, or in object stores."""
        if not self.is_local:
            return None
        try:
            with Path(self._path(name)).open() as file:
                return (file.read() or "another process") if is_locked(file) else None
        except OSError:
            return None

    @contextmanager
    def locked(self, name: str, holder: str) -> Iterator[None]:
        """Within the block, hold the lock of file `name`; the lock ends with the process, however it ends.

        Object stores have no locks: this does nothing there.

        Args:
            name: Name of the lock file, which stays afterwards.
            holder: Description of this process, written into the file for others to read.

        Raises:
            InputError: If the file is locked already; the message names the other holder.
        """
        if not self.is_local:
            yield
            return
        path = Path(self._path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as file:
            try:
                mine = lock(file) or _once_more(file)
            except OSError:
                mine = True  # a file system without locks
            if not mine:
                file.seek(0)
                raise InputError(f"{self.shown} is in use by {file.read() or 'another process'}")
            with suppress(OSError):  # on a full disk the lock holds all the same
                os.truncate(file.fileno(), 0)
                os.write(file.fileno(), holder.encode())  # unbuffered: nothing is left to fail at the block's end
            yield

    def write_folder(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Write several files in the mapping's order; the file that marks completeness should come last."""
        for name, data in files.items():
            self.write(f"{folder}/{name}", data)

    def download(self, folder: str, destination: Path) -> Path:
        """Copy the files directly below `folder` to a local folder."""
        destination.mkdir(parents=True, exist_ok=True)
        for name in self.names(folder):
            (destination / name).write_bytes(self.read(f"{folder}/{name}"))
        return destination

    def _path(self, name: str) -> str:
        return f"{self._base.rstrip('/')}/{name}" if name else self._base


def _once_more(file: IO[str]) -> bool:
    """Take a lock which somebody may only have looked at."""
    time.sleep(GLANCE_S)
    return lock(file)
