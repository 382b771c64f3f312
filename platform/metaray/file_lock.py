"""Locks on open files: they go with the process that holds them, however it ends."""

import fcntl
from typing import IO, Any


def lock(file: IO[Any], *, wait: bool = False) -> bool:
    """Lock an open file, exclusively, until the file is closed.

    Args:
        file: Any open file; the lock does not prevent others from writing to it.
        wait: Whether to wait until another holder releases the lock.

    Returns:
        Whether the lock is held now; always true if `wait` is.

    Raises:
        OSError: If the file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def share(file: IO[Any] | int) -> None:
    """Lock an open file together with all others who share the lock, until the file is closed.

    It waits for an exclusive holder; nobody gets the lock exclusively meanwhile.

    Args:
        file: Any open file, or its descriptor.

    Raises:
        OSError: If the file system has no locks.
    """
    fcntl.flock(file, fcntl.LOCK_SH)


def is_locked(file: IO[str]) -> bool:
    """Whether somebody else holds the exclusive lock of an open file.

    To find out, the lock is shared for an instant, in which nobody can get it exclusively.

    Args:
        file: Any open file.

    Raises:
        OSError: If the file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False
