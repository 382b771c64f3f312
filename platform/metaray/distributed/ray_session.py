"""The folder of a Ray session that this process has started: it goes with the process, its logs only after a success.

Ray itself leaves one, with logs, sockets and the packages that it has unpacked, under the temporary folder at each
start. Only folders with our mark are touched: those of other clusters are nobody's business here.
"""

import atexit
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO

import ray

from metaray.file_lock import lock

MARK, KEEP = ".metaray.lock", ".metaray.keep"
LOGS, LATEST = "logs", "session_latest"

_own: list[tuple[Path, IO[str]]] = []
"""Sessions of this process; each is marked by a lock that ends with the process, however that ends."""


def own_session(folder: Path) -> None:
    """Remove a session's folder when this process ends, and now those that killed processes have left beside it."""
    # Under another name until it is locked, so that nobody takes it for one that was left.
    made = folder / f"{MARK}.new"
    mark = made.open("w")
    lock(mark)
    made.rename(folder / MARK)
    if not _own:
        # Called before Ray's own, which was registered when Ray was imported; that finds nothing left to do.
        atexit.register(_end, os.getpid())
    _own.append((folder, mark))
    sweep(folder.parent)


def sweep(root: Path) -> None:
    """Remove the folders of those sessions of ours in `root` whose process is gone."""
    for path in root.glob(f"session_*/{MARK}"):
        with suppress(OSError), path.open("r+") as mark:  # another user's, or gone meanwhile
            if lock(mark):
                _remove(path.parent)


def keep_logs(logs: Path) -> None:
    """Have the logs of a session stay, because a message names them; in any process of its cluster on this node."""
    if (logs.parent / MARK).exists():
        with suppress(OSError):
            (logs.parent / KEEP).touch()


def _end(owner: int) -> None:
    if os.getpid() != owner:  # a fork of it
        return
    if ray.is_initialized():
        ray.shutdown(_exiting_interpreter=True)
    while _own:
        folder, mark = _own.pop()
        _remove(folder)
        mark.close()


def _remove(folder: Path) -> None:
    """Remove a session's folder; where its logs are to stay, all but these."""
    if not (folder / KEEP).exists():
        latest = folder.parent / LATEST
        with suppress(OSError):
            if latest.is_symlink() and latest.resolve() == folder.resolve():
                latest.unlink()
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path.name in (LOGS, MARK):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    (folder / MARK).unlink(missing_ok=True)  # the last, so that the next start goes on where this one is killed
