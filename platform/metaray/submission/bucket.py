"""Whether the storage of a job is there, as far as this machine can tell."""

import threading
from collections.abc import Callable

from pyarrow import ArrowException, fs

from metaray.errors import InputError, redacted

WITHIN_S = 15.0
MISSING = ("NO_SUCH_BUCKET", "not found", "does not exist")


def check_bucket(storage: str, note: Callable[[str], None]) -> None:
    """Look for the bucket of an s3:// address; what only the nodes can reach, they look at before training starts.

    Args:
        storage: Storage of the job.
        note: Function that is told why the bucket could not be looked for.

    Raises:
        InputError: If there is no such bucket.
    """
    if not storage.lower().startswith("s3://"):
        return
    bucket = storage.partition("://")[2].partition("?")[0].partition("/")[0]
    found: list[bool | str] = []
    thread = threading.Thread(target=lambda: found.append(_look(storage, bucket)), daemon=True)
    thread.start()
    thread.join(WITHIN_S)
    answer = found[0] if found else f"no answer within {WITHIN_S:g} s"
    if answer is False:
        raise InputError(
            f"--storage {redacted(storage)!r}: there is no bucket {bucket!r}; make it, name another, or set "
            "AWS_ENDPOINT_URL where the store is not Amazon's"
        )
    if answer is not True:
        note(f"bucket {bucket!r} can't be looked for from here ({answer}); the nodes try before training starts")


def _look(storage: str, bucket: str) -> bool | str:
    """Whether it is there; or why that cannot be said."""
    try:
        system, _ = fs.FileSystem.from_uri(storage)
        return bool(system.get_file_info(bucket).type != fs.FileType.NotFound)
    except (ArrowException, OSError, ValueError) as error:
        text = redacted(str(error).splitlines()[0]) if str(error) else type(error).__name__
        return False if any(word in text for word in MISSING) else text
