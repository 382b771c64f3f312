"""Folders and archives of files, read alike."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metaray.data.file_tree import FileTree, folder_tree
from metaray.data.tars import COMPRESSIONS, open_tar
from metaray.data.text_encoding import check_encoding
from metaray.data.zips import open_zip
from metaray.errors import InputError

# Where a plain tar archive says that it is one.
TAR_MAGIC, TAR_MAGIC_AT = b"ustar", 257


@contextmanager
def open_tree(path: Path, encoding: str | None = None) -> Iterator[FileTree]:
    """Open a folder, or a zip or tar archive, which its contents identify, not its name.

    Args:
        path: Path of the folder or archive.
        encoding: Encoding of names in an archive that are not UTF-8.

    Raises:
        InputError: If the path is missing or is none of these, or the archive is damaged or has forbidden contents:
            names that lead out of it, links, encrypted members, files beyond all measure, a name twice. The message
            names the path.
    """
    check_encoding(encoding)
    if path.is_dir():
        yield folder_tree(path)
        return
    if not path.is_file():
        raise InputError(f"{path}: no such folder or zip or tar archive")
    try:
        with path.open("rb") as file:
            head = file.read(TAR_MAGIC_AT + len(TAR_MAGIC))
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from None
    is_tar = head.startswith(tuple(COMPRESSIONS)) or head[TAR_MAGIC_AT:] == TAR_MAGIC
    with open_tar(path, encoding) if is_tar else open_zip(path, encoding) as tree:
        yield tree
