"""Temporary folders that do not outlive their process for long, however it ends."""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

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
        _locked(stack.enter_context((made / LOCK).open("w")))
        made.rename(folder)
        yield str(folder)


def _sweep(lock: Path) -> None:
    """Delete a folder if nobody holds its lock."""
    try:
        with lock.open("r+") as file:
            if _locked(file):
                shutil.rmtree(lock.parent, ignore_errors=True)
    except OSError:
        pass  # another user's, or gone meanwhile


def _locked(file: IO[str]) -> bool:
    """Whether this process has the file's lock by now; it goes with the process."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
