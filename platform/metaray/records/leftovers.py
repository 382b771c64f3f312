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
"""Seconds without a write after which an unfinished run counts as abandoned, in storages without locks."""
DISCARDED = re.compile(rf"\..+\.[0-9a-f]{{32}}{re.escape(UNFINISHED)}")


class Leftover(NamedTuple):
    """A file or folder of a run that may be deleted.

    Attributes:
        path: Path relative to the run's folder; empty for the folder itself.
        what: Description of the file or folder.
        size_bytes: Total size in bytes.
    """

    path: str
    what: str
    size_bytes: int


def why_not_now(storage: Storage, seen: Overview) -> str | None:
    """Reason why a run must be left alone now; None if there is none."""
    if seen.holder:
        return f"it is in use by {seen.holder}"
    if not storage.is_local and seen.state != "finished" and time.time() - seen.changed_s < QUIET_S:
        return (
            "something was written there within the last hour, and object stores have no locks that would say whether "
            "it runs"
        )
    return None


def leftovers(storage: Storage, seen: Overview) -> list[Leftover]:
    """The leftovers of a run that no other process holds.

    These are: what interrupted writes left behind; all of a run that was never begun; and, of a finished run, the
    checkpoints that are neither the newest undamaged one, from which it can be extended, nor the best one. The learner
    and the result are other files.
    """
    if seen.state == "not begun":
        return [Leftover("", "a run that was never begun", seen.size_bytes)]
    found = broken_off_checkpoints(storage)
    found += broken_off_files(storage, outside=[f"{one.path}/" for one in found])
    return found + (_superfluous(storage) if seen.state == "finished" else [])


def broken_off_checkpoints(storage: Storage) -> list[Leftover]:
    """Checkpoints of a run that are incomplete because writing them was interrupted."""
    return [Leftover(path, "a checkpoint whose write broke off", _size(storage, path)) for path in orphans(storage)]


def broken_off_files(storage: Storage, *, outside: Sequence[str] = ()) -> list[Leftover]:
    """Temporary files of interrupted writes, at any depth, except below the paths in `outside`."""
    paths = [path for path in storage.unfinished() if not path.startswith(tuple(outside))]
    return [Leftover(path, "a file whose write broke off", _size(storage, path)) for path in paths]


def deletions_broken_off(root: Storage) -> list[Leftover]:
    """Folders in the storage of all runs that `Storage.discard` had begun to delete."""
    paths = [path for path in root.names() if root.is_local and DISCARDED.fullmatch(path)]
    return [Leftover(path, "a run whose deletion broke off", _size(root, path)) for path in paths]


def remove(storage: Storage, leftover: Leftover) -> None:
    """Delete a leftover.

    Raises:
        OSError: If it cannot be deleted.
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
