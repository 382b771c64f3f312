"""The files of a run's checkpoints, and what they say of the run besides its tensors: none of it needs torch."""

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from metaray.config import explain
from metaray.errors import InputError
from metaray.json_text import parse_object
from metaray.manifest import MANIFEST, Damaged, sealed, unsealed
from metaray.records.storage import Storage

CHECKPOINTS_FOLDER = "checkpoints"
STATE, PROGRESS = "state.safetensors", "progress.json"
NAME = re.compile(r"^step-\d{9,}$")


@dataclass(frozen=True)
class Progress:
    """The progress of a run, without its tensors.

    Attributes:
        step: Next outer step.
        best_step: Outer step with the best score on meta-val so far; None before the first evaluation.
        best_score: Score of that step on meta-val.
        window: Sums over the steps since metrics were last recorded (see `metaray.training.step_sums`).
        clock: Times summed over the whole run.
        segments: Number of segments of the journal written so far; 0 in older checkpoints.
        environment: Versions and CPU capability that the bits may depend on.
        network: Checksums of the network's frozen parameters, buffers and other tensors.
    """

    step: int = 0
    best_step: int | None = None
    best_score: float | None = None
    window: dict[str, float] = field(default_factory=dict)
    clock: dict[str, float] = field(default_factory=dict)
    segments: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    network: dict[str, dict[str, Any]] = field(default_factory=dict)


_PROGRESS = TypeAdapter(Progress)


def newest_progress(storage: Storage) -> Progress:
    """Progress in the newest checkpoint, read without its tensors; that of step 0 without a checkpoint.

    This is for observers. A run that resumes also checks the tensors, and skips a checkpoint whose tensors are damaged.
    """
    for step in reversed(saved_steps(storage)):
        with suppress(Damaged):
            return progress_of(read_checkpoint(storage, step, only=PROGRESS))
    return Progress()


def copy_checkpoint(source: Storage, target: Storage, step: int) -> None:
    """Verify a checkpoint and copy it to another run, which has its own journal.

    Raises:
        Damaged: If the checkpoint is damaged.
        OSError: If the checkpoint cannot be read or written.
    """
    files = read_checkpoint(source, step)
    write_checkpoint(target, files, replace(progress_of(files), segments=0))


def read_checkpoint(storage: Storage, step: int, *, only: str | None = None) -> dict[str, bytes]:
    """Read and verify the files of a checkpoint, or the file `only`.

    Raises:
        Damaged: If the checkpoint is damaged.
        OSError: If the checkpoint cannot be read.
    """
    folder = f"{CHECKPOINTS_FOLDER}/{checkpoint_name(step)}"
    files = unsealed(lambda name: storage.read(f"{folder}/{name}"), only=only)
    if absent := ({STATE, PROGRESS} if only is None else {only}) - files.keys():
        raise Damaged(f"{min(absent)} is missing")
    return files


def write_checkpoint(storage: Storage, files: Mapping[str, bytes], progress: Progress) -> None:
    """Write the files of a checkpoint with other progress, as the checkpoint of `progress.step`.

    Raises:
        OSError: If the checkpoint cannot be written.
    """
    folder = f"{CHECKPOINTS_FOLDER}/{checkpoint_name(progress.step)}"
    storage.write_folder(folder, sealed({**files, PROGRESS: written(progress)}))


def written(progress: Progress) -> bytes:
    """Bytes of the progress file."""
    return json.dumps(asdict(progress), indent=2).encode()


def progress_of(files: Mapping[str, bytes]) -> Progress:
    """Progress in the files of a checkpoint; raises `Damaged` if it cannot be read."""
    try:
        return _PROGRESS.validate_python(parse_object(files[PROGRESS], where=PROGRESS))
    except InputError as error:
        raise Damaged(str(error)) from None
    except ValidationError as error:
        raise Damaged(explain(error, where=PROGRESS)) from None


def saved_steps(storage: Storage) -> list[int]:
    """Steps that have a finished checkpoint, ascending."""
    names = _folders(storage)
    return sorted(int(n.removeprefix("step-")) for n in names if storage.exists(f"{CHECKPOINTS_FOLDER}/{n}/{MANIFEST}"))


def _folders(storage: Storage) -> list[str]:
    """What looks like a checkpoint, finished or not; other files are none of ours."""
    return [name for name in storage.names(CHECKPOINTS_FOLDER) if NAME.match(name)]


def keep_checkpoints(storage: Storage, keep: Iterable[int]) -> None:
    """Delete all other checkpoints, and unfinished ones that a killed process left behind."""
    kept = {checkpoint_name(step) for step in keep}
    for name in _folders(storage):
        if name not in kept:
            storage.delete_folder(f"{CHECKPOINTS_FOLDER}/{name}")


def orphans(storage: Storage) -> list[str]:
    """The folders of checkpoints whose writes broke off, or are not done yet."""
    whole = {checkpoint_name(step) for step in saved_steps(storage)}
    return [f"{CHECKPOINTS_FOLDER}/{name}" for name in _folders(storage) if name not in whole]


def whole_steps(storage: Storage) -> list[int]:
    """Steps whose checkpoint holds what was written, ascending: all of each is read."""
    found = []
    for step in saved_steps(storage):
        with suppress(Damaged, OSError):
            read_checkpoint(storage, step)
            found.append(step)
    return found


def sweep(storage: Storage) -> list[str]:
    """Delete what interrupted writes left behind: unfinished checkpoints, temporary files; returns their names.

    Only the one process that writes to this run may call it.
    """
    found = orphans(storage)
    for folder in found:
        storage.delete_folder(folder)
    return found + storage.delete_unfinished()


def checkpoint_name(step: int) -> str:
    """The folder of a step's checkpoint, below `CHECKPOINTS_FOLDER`."""
    return f"step-{step:09d}"
