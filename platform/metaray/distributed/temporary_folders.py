"""Temporary folders that do not outlive their process for long, however it ends."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from metaray.file_lock import lock

LOCK = ".lock"


@contextmanager
def scratch(prefix: str) -> Iterator[str]:
    """A temporary folder for the block; those that killed processes left under the same prefix go as well."""
    root = Path(tempfile.gettempdir())
    for left in root.glob(f"{prefix}*/{LOCK}"):
        _sweep(left)
    with ExitStack() as stack:
        # Under another name until it is locked, so that nobody takes it for one that was left.
        made = Path(tempfile.mkdtemp(prefix=f".{prefix}", dir=root))
        folder = made.with_name(made.name.removeprefix("."))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        with suppress(OSError):  # a file system without locks
            lock(stack.enter_context((made / LOCK).open("w")))
        made.rename(folder)
        yield str(folder)


def _sweep(mark: Path) -> None:
    """Delete a folder if nobody holds its lock."""
    try:
        with mark.open("r+") as file:
            if lock(file):
                shutil.rmtree(mark.parent, ignore_errors=True)
    except OSError:
        pass  # another user's, or gone meanwhile
