"""Locks on open files: they go with the process that holds them, however it ends."""

import fcntl
from typing import IO, Any


def lock(file: IO[Any], *, wait: bool = False) -> bool:
    """Take the lock of an open file, which is held until the file is closed.

    Args:
        file: Any open file; writing to it needs no lock and is not prevented by one.
        wait: Whether to wait until another holder lets go.

    Returns:
        Whether it is held now; always True where it was waited for.

    Raises:
        OSError: If the file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def share(file: IO[Any] | int) -> None:
    """Hold the lock of an open file together with all others who share it, until the file is closed.

    Waits for whoever has it alone; nobody gets it alone meanwhile.

    Args:
        file: Any open file, or its descriptor.

    Raises:
        OSError: If the file system has no locks.
    """
    fcntl.flock(file, fcntl.LOCK_SH)


def is_locked(file: IO[str]) -> bool:
    """Whether somebody else holds the lock of an open file.

    To see that, it is shared with all others who look, for an instant in which nobody can take it.

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
