"""What of a run's folder nobody needs any more, and how it goes."""

import re
import time
from collections.abc import Sequence
from typing import NamedTuple

from metaray.records.checkpoint_files import (
    CHECKPOINTS_FOLDER,
    checkpoint_name,
    newest_progress,
    orphans,
    saved_steps,
    whole_steps,
)
from metaray.records.overview import Overview
from metaray.records.storage import UNFINISHED, Storage

QUIET_S = 3600.0
"""Where there are no locks, an unfinished run that wrote nothing for so long is taken to be nobody's."""
DISCARDED = re.compile(rf"\..+\.[0-9a-f]{{32}}{re.escape(UNFINISHED)}")


class Leftover(NamedTuple):
    """Something that may go.

    Attributes:
        path: Path of the file or folder, from the folder that it is a leftover of; empty for that itself.
        what: It is.
        size_bytes: Size of all of it, in bytes.
    """

    path: str
    what: str
    size_bytes: int


def why_not_now(storage: Storage, seen: Overview) -> str | None:
    """Why a run must be left alone; None if it need not be."""
    if seen.holder:
        return f"it is in use by {seen.holder}"
    if not storage.is_local and seen.state != "finished" and time.time() - seen.changed_s < QUIET_S:
        return (
            "something was written there within the last hour, and object stores have no locks that would say whether "
            "it runs"
        )
    return None


def leftovers(storage: Storage, seen: Overview) -> list[Leftover]:
    """What may go of a run that nobody else has.

    That is: what writes that broke off left behind; all of a run that was never begun; and of a finished run the
    checkpoints that are neither the newest whole one, from which it could go on, nor the best one. Its learner and its
    result are files of their own.
    """
    if seen.state == "not begun":
        return [Leftover("", "a run that was never begun", seen.size_bytes)]
    found = broken_off_checkpoints(storage)
    found += broken_off_files(storage, outside=[f"{one.path}/" for one in found])
    return found + (_superfluous(storage) if seen.state == "finished" else [])


def broken_off_checkpoints(storage: Storage) -> list[Leftover]:
    """Checkpoints of a run that are not whole because their write broke off."""
    return [Leftover(path, "a checkpoint whose write broke off", _size(storage, path)) for path in orphans(storage)]


def broken_off_files(storage: Storage, *, outside: Sequence[str] = ()) -> list[Leftover]:
    """Temporary files that writes left behind, however deep, but for those whose paths begin with one of `outside`."""
    paths = [path for path in storage.unfinished() if not path.startswith(tuple(outside))]
    return [Leftover(path, "a file whose write broke off", _size(storage, path)) for path in paths]


def deletions_broken_off(root: Storage) -> list[Leftover]:
    """Folders in the storage of all runs that `Storage.discard` had begun to delete."""
    paths = [path for path in root.names() if root.is_local and DISCARDED.fullmatch(path)]
    return [Leftover(path, "a run whose deletion broke off", _size(root, path)) for path in paths]


def remove(storage: Storage, leftover: Leftover) -> None:
    """Delete a leftover.

    Raises:
        OSError: If that fails.
    """
    if not leftover.path:
        storage.discard("")
    elif storage.exists(leftover.path):
        storage.delete_file(leftover.path)
    else:
        storage.delete_folder(leftover.path)


def _superfluous(storage: Storage) -> list[Leftover]:
    """Checkpoints of a finished run; none where no other is whole."""
    whole = whole_steps(storage)
    kept = {*whole[-1:], newest_progress(storage).best_step}
    paths = [
        f"{CHECKPOINTS_FOLDER}/{checkpoint_name(step)}" for step in saved_steps(storage) if whole and step not in kept
    ]
    what = "a checkpoint of a finished run, neither the newest nor the best"
    return [Leftover(path, what, _size(storage, path)) for path in paths]


def _size(storage: Storage, path: str) -> int:
    parent = path.rpartition("/")[0]
    return sum(
        file.size_bytes for file in storage.files(parent) if file.name == path or file.name.startswith(f"{path}/")
    )
