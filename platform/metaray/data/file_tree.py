"""Files under a root, wherever they lie: what the readers of folders and archives make."""

import os
import stat
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path, PurePosixPath

from metaray.data.names import check_characters, clean_path, clutter_in, is_clutter
from metaray.errors import InputError

# Far above any image file, far below what an archive that is a bomb needs.
MAX_FILE_BYTES = 1 << 28

Reader = Callable[[], bytes]


class FileTree:
    """The files under a root folder, without hidden files and system clutter.

    Attributes:
        path: Path of the folder or archive.
        names: Relative names of the files, with slashes, in NFC, sorted.
        clutter: Hidden files, hidden folders and system clutter that were left out, sorted.
        empty: Folders without files, sorted.
        notes: Messages for the user about how names were read, one sentence each.
    """

    def __init__(
        self,
        path: Path,
        files: Iterable[tuple[str, Reader]],
        folders: Iterable[str] = (),
        notes: tuple[str, ...] = (),
    ) -> None:
        self.path = path
        self.notes = notes
        self._readers: dict[str, Reader] = {}
        clutter: set[str] = set()
        for raw, reader in files:
            name = clean_path(raw)
            if left_out := clutter_in(name):
                clutter.add(left_out)
                continue
            check_characters(name, str(path))
            if name in self._readers:
                raise InputError(
                    f"{path}: refused: two of its files are called {name!r} (twice the same name, or two spellings in "
                    "Unicode); rename or remove one"
                )
            self._readers[name] = reader
        self.names = sorted(self._readers)
        holding = {name.rpartition("/")[0] for name in self.names}
        used = holding | {str(parent) for folder in holding for parent in PurePosixPath(folder).parents}
        cleaned = {clean_path(folder) for folder in folders} - {""}
        clutter |= {clutter_in(folder) for folder in cleaned} - {""}
        self.clutter = sorted(clutter)
        unused = {folder for folder in cleaned if folder not in used and not clutter_in(folder)}
        self.empty = sorted(folder for folder in unused if str(PurePosixPath(folder).parent) not in unused)

    def read(self, name: str) -> bytes:
        """Read one file; it may be called from several threads.

        Raises:
            InputError: If the file cannot be read; the message names it.
        """
        return self._readers[name]()

    def where(self, name: str) -> str:
        """Name of the file for messages."""
        return str(self.path / name)


def folder_tree(path: Path) -> FileTree:
    """The files in a folder, following links.

    Raises:
        InputError: If a folder in it cannot be read, or a link leads to a folder that contains it.
    """
    files: list[tuple[str, Reader]] = []
    folders: list[str] = []
    for here, inner, names in os.walk(path, followlinks=True, onerror=_refuse):
        folder = Path(here)
        if folder.is_symlink() and folder.resolve() in folder.absolute().parents:
            raise InputError(f"{folder}: a symbolic link to a folder that contains it")
        relative = folder.relative_to(path).as_posix()
        folders += [f"{relative}/{name}" for name in inner]
        files += [(f"{relative}/{name}", partial(_read_file, f"{here}/{name}")) for name in names]
        inner[:] = [name for name in inner if not is_clutter(name)]
    return FileTree(path, files, folders)


def _read_file(name: str) -> bytes:
    path = Path(name)
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path}: neither a file nor a folder")
        check_size(found.st_size, str(path))
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from None


def check_size(size_bytes: int, where: str) -> None:
    """Check that a file is not too large for an image.

    Raises:
        InputError: If it is; the message names `where` and the sizes.
    """
    if size_bytes > MAX_FILE_BYTES:
        raise InputError(f"{where}: refused: a file of {size_bytes} bytes (at most {MAX_FILE_BYTES})")


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename}: can't be read: {error.strerror}")
