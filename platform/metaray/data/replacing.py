"""Where a store may be written: never over what is none, nor over what it is made of."""

from collections.abc import Iterable
from pathlib import Path

from metaray.data.store_file import check_writable
from metaray.errors import InputError

MAGIC = b"ARROW1"


def check_replaceable(path: Path, sources: Iterable[Path] = ()) -> None:
    """Find out before any work whether a store can be written as `path`, in the place of an older store at most.

    Args:
        path: File to write.
        sources: Paths of what it is made of.

    Raises:
        InputError: If `check_writable` raises it; if something else than a store lies there, or one of the sources.
    """
    check_writable(path)
    if not path.exists():
        return
    if any(source.exists() and path.samefile(source) for source in sources):
        raise InputError(f"{path}: is what the store would be made of, and would be lost; give it another name")
    try:
        with path.open("rb") as file:
            begin = file.read(len(MAGIC))
    except OSError as error:
        raise InputError(f"{path}: can't be replaced: {error.strerror}") from None
    if begin not in (b"", MAGIC):
        raise InputError(f"{path}: something else than a store lies there; give another name, or delete it")
