"""What a failed run leaves in its folder: why it failed, and the whole traceback of every process that raised one."""

import logging
from contextlib import suppress
from datetime import UTC, datetime

from metaray.errors import InputError, RunFailed, RunStopped, redacted
from metaray.records.storage import Storage
from metaray.tracebacks import summary, told, whole

FAILURE = "failure.txt"

logger = logging.getLogger("metaray.run")


def as_failure(error: BaseException) -> BaseException:
    """The error to report to the user of a run; an unforeseen one begins with the user's own lines.

    Errors that metaray raises on purpose, and interrupts such as Ctrl-C, are returned unchanged.
    """
    if isinstance(error, InputError | RunFailed | RunStopped) or not isinstance(error, Exception):
        return error
    failure = RunFailed(summary(error), told=told(error), tracebacks=whole(error))
    failure.__cause__ = error
    return failure


def failure_text(error: RunFailed) -> str:
    """Everything that is known about an error, without the secrets of URIs."""
    parts = [f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: {error}", error.told, error.tracebacks]
    return redacted("\n\n".join(part.strip("\n") for part in parts if part)) + "\n"


def write_failure(storage: Storage, error: RunFailed) -> None:
    """Write an error to the run's folder, and note in the error where; a full disk does not hide the error."""
    logger.error("%s", failure_text(error))
    try:
        storage.write(FAILURE, failure_text(error).encode())
    except OSError as problem:
        error.add_note(f"{FAILURE} could not be written: {problem}")
        return
    if error.tracebacks:
        error.add_note(f"the whole traceback of each process: {storage.shown}/{FAILURE}")


def forget_failure(storage: Storage) -> None:
    """A run that failed before has gone on and ended well."""
    with suppress(OSError):
        if storage.exists(FAILURE):
            storage.delete_file(FAILURE)
