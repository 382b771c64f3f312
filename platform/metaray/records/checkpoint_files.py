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
    """What a run knows about itself besides its tensors.

    Attributes:
        step: The next step.
        best_step: The step with the best meta-val score so far, which is the highest accuracy or the lowest squared
            error; None before the first meta-val.
        best_score: Score of that step on meta-val.
        window: Sums over the steps since metrics were last recorded (see `metaray.training.step_sums`).
        clock: Times over the whole run, likewise.
        segments: Number of segments of the journal that were written by then; 0 in older checkpoints, which do not say.
        environment: Versions and CPU capability that the bits may depend on.
        network: Marks that the network's frozen parameters, buffers and other tensors are known again by.
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
    """What the newest checkpoint says of its run, without its tensors; of step 0 where there is none.

    For onlookers: whoever goes on from it checks its tensors, too, and passes over a checkpoint where they are damaged.
    """
    for step in reversed(saved_steps(storage)):
        with suppress(Damaged):
            return progress_of(read_checkpoint(storage, step, only=PROGRESS))
    return Progress()


def copy_checkpoint(source: Storage, target: Storage, step: int) -> None:
    """Copy a checkpoint, checked, from one run to another, whose journal has segments of its own.

    Raises:
        Damaged: If it is not whole.
        OSError: If it cannot be read or written.
    """
    files = read_checkpoint(source, step)
    write_checkpoint(target, files, replace(progress_of(files), segments=0))


def read_checkpoint(storage: Storage, step: int, *, only: str | None = None) -> dict[str, bytes]:
    """The files of a checkpoint, or `only` one of them, checked.

    Raises:
        Damaged: If it is not whole.
        OSError: If it cannot be read.
    """
    folder = f"{CHECKPOINTS_FOLDER}/{checkpoint_name(step)}"
    files = unsealed(lambda name: storage.read(f"{folder}/{name}"), only=only)
    if absent := ({STATE, PROGRESS} if only is None else {only}) - files.keys():
        raise Damaged(f"{min(absent)} is missing")
    return files


def write_checkpoint(storage: Storage, files: Mapping[str, bytes], progress: Progress) -> None:
    """Write the files of a checkpoint, with other progress, as that of `progress.step`.

    Raises:
        OSError: If it cannot be written.
    """
    folder = f"{CHECKPOINTS_FOLDER}/{checkpoint_name(progress.step)}"
    storage.write_folder(folder, sealed({**files, PROGRESS: written(progress)}))


def written(progress: Progress) -> bytes:
    """The file of it."""
    return json.dumps(asdict(progress), indent=2).encode()


def progress_of(files: Mapping[str, bytes]) -> Progress:
    """What the files of a checkpoint say of its run; `Damaged` if that cannot be read."""
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
    """Delete the other checkpoints, and unfinished ones that a kill left behind."""
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
    """Delete what writes that broke off have left behind: unfinished checkpoints, temporary files; returns their names.

    Only for the one process that writes to this run.
    """
    found = orphans(storage)
    for folder in found:
        storage.delete_folder(folder)
    return found + storage.delete_unfinished()


def checkpoint_name(step: int) -> str:
    """The folder of a step's checkpoint, below `CHECKPOINTS_FOLDER`."""
    return f"step-{step:09d}"
