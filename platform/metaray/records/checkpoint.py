"""Checkpoints: meta-parameters and optimiser state as safetensors, the rest as JSON, checksummed, manifest last."""

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import NamedTuple

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from metaray.algorithms.context import Tensors, not_finite
from metaray.config import explain
from metaray.errors import InputError
from metaray.json_text import parse_object
from metaray.manifest import MANIFEST, Damaged, sealed, unsealed
from metaray.models.state import Marks
from metaray.records.environment import environment
from metaray.records.optimizer_state import OptimizerState, pack_optimizer, unpack_optimizer
from metaray.records.storage import Storage
from metaray.records.train_state import TrainState

CHECKPOINTS_FOLDER = "checkpoints"
STATE, PROGRESS, OPTIMIZER = "state.safetensors", "progress.json", "optimizer.json"
CPU = torch.device("cpu")
NAME = re.compile(r"^step-\d{9,}$")


@dataclass(frozen=True)
class Progress:
    """What a run knows about itself besides its tensors.

    Attributes:
        step: the next step.
        best_step: the step with the best meta-val score so far, which is the highest accuracy or the lowest squared
            error; None before the first meta-val.
        best_score: that score.
        window: sums over the steps since metrics were last recorded (see `metaray.training.step_sums`).
        clock: times over the whole run, likewise.
        segments: of the journal that were written by then; 0 in older checkpoints, which do not say.
        environment: versions and CPU capability that the bits may depend on.
        network: by what the network's frozen parameters, buffers and other tensors are known again.
    """

    step: int = 0
    best_step: int | None = None
    best_score: float | None = None
    window: dict[str, float] = field(default_factory=dict)
    clock: dict[str, float] = field(default_factory=dict)
    segments: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    network: Marks = field(default_factory=dict)


_PROGRESS = TypeAdapter(Progress)


class Loaded(NamedTuple):
    """What a run goes on from.

    Attributes:
        progress: of the checkpoint; of step 0 where there is none.
        best: the meta-parameters of its `best_step`.
        damaged: for each newer checkpoint that is not whole, its step and what is wrong with it.
    """

    progress: Progress
    best: Tensors
    damaged: dict[int, str]


def save_checkpoint(storage: Storage, state: TrainState, progress: Progress, best: Tensors) -> str:
    """Write the checkpoint of `state.step`, and read it back; returns its name.

    It needs no other: the best meta-parameters are in it too, where they are not the current ones.

    Args:
        storage: of the run.
        state: to save.
        progress: to save; its step and environment are filled in.
        best: the meta-parameters of `progress.best_step`.

    Raises:
        OSError: if it could not be written, or is not what was written; the checkpoints before it are untouched.
    """
    name = checkpoint_name(state.step)
    tensors = {f"meta/{key}": _plain(tensor) for key, tensor in state.meta.items()}
    moments, table = ({}, None) if state.optimizer is None else pack_optimizer(state.optimizer, state.meta)
    tensors.update(moments)
    if progress.best_step not in (None, state.step):
        tensors.update({f"best/{key}": _plain(tensor) for key, tensor in best.items()})
    record = replace(progress, step=state.step, environment=environment(_device(state)))
    files = {STATE: save(tensors), PROGRESS: _written(record)}
    if table is not None:
        files[OPTIMIZER] = json.dumps(table).encode()
    try:
        storage.write_folder(f"{CHECKPOINTS_FOLDER}/{name}", sealed(files))
    except OSError:
        # What there is of it takes the room that the next one needs.
        with suppress(OSError):
            if not storage.exists(f"{CHECKPOINTS_FOLDER}/{name}/{MANIFEST}"):
                storage.delete_folder(f"{CHECKPOINTS_FOLDER}/{name}")
        raise
    try:
        read_checkpoint(storage, state.step)
    except Damaged as error:
        raise OSError(f"the checkpoint of step {state.step} was written, but reads back damaged: {error}") from error
    return name


def load_checkpoint(storage: Storage, state: TrainState, *, at_most: int | None = None) -> Loaded:
    """Load the newest checkpoint that is whole into `state`, in place.

    Args:
        storage: of the run.
        state: as `initial_state` made it; stays so where there is no whole checkpoint.
        at_most: its step; None takes any.

    Raises:
        OSError: if none could be read at all, which is no reason to start again from nothing.
    """
    damaged: dict[int, str] = {}
    unread: OSError | None = None
    steps = [step for step in saved_steps(storage) if at_most is None or step <= at_most]
    for step in reversed(steps):
        try:
            files = read_checkpoint(storage, step)
            tensors, progress = _parsed(files, state)
            optimizer = _optimizer(files, tensors, state)
        except (Damaged, OSError) as error:
            damaged[step] = str(error)
            unread = error if isinstance(error, OSError) else unread
            continue
        _restore(state, tensors, optimizer)
        state.step = progress.step
        best = {name: tensors.get(f"best/{name}", parameter) for name, parameter in state.meta.items()}
        return Loaded(progress, copies(best), damaged)
    if unread is not None:
        raise unread
    return Loaded(Progress(), copies(state.meta), damaged)


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
        Damaged: if it is not whole.
        OSError: if it cannot be read or written.
    """
    files = read_checkpoint(source, step)
    write_checkpoint(target, files, replace(progress_of(files), segments=0))


def read_checkpoint(storage: Storage, step: int, *, only: str | None = None) -> dict[str, bytes]:
    """The files of a checkpoint, or `only` one of them, checked.

    Raises:
        Damaged: if it is not whole.
        OSError: if it cannot be read.
    """
    folder = f"{CHECKPOINTS_FOLDER}/{checkpoint_name(step)}"
    files = unsealed(lambda name: storage.read(f"{folder}/{name}"), only=only)
    if absent := ({STATE, PROGRESS} if only is None else {only}) - files.keys():
        raise Damaged(f"{min(absent)} is missing")
    return files


def write_checkpoint(storage: Storage, files: Mapping[str, bytes], progress: Progress) -> None:
    """Write the files of a checkpoint, with other progress, as that of `progress.step`.

    Raises:
        OSError: if it cannot be written.
    """
    folder = f"{CHECKPOINTS_FOLDER}/{checkpoint_name(progress.step)}"
    storage.write_folder(folder, sealed({**files, PROGRESS: _written(progress)}))


def _parsed(files: Mapping[str, bytes], state: TrainState) -> tuple[Tensors, Progress]:
    """The tensors and the rest of a checkpoint, after checking that `state` can go on from them.

    Raises:
        Damaged: if it cannot.
    """
    try:
        tensors = load(files[STATE])
    except (SafetensorError, ValueError, KeyError) as error:
        raise Damaged(f"{STATE} cannot be read: {error}") from None
    for name, parameter in state.meta.items():
        found = tensors.get(f"meta/{name}")
        if found is None or found.shape != parameter.shape:
            shape = "absent" if found is None else list(found.shape)
            raise Damaged(f"parameter {name} is {shape} instead of {list(parameter.shape)}")
    # Moments of an optimiser may overflow in a run that goes on all the same.
    weights = {name: tensor for name, tensor in tensors.items() if name.startswith(("meta/", "best/"))}
    if (strange := not_finite(weights)) is not None:
        raise Damaged(f"{strange} holds values that are not finite")
    return tensors, progress_of(files)


def _optimizer(files: Mapping[str, bytes], tensors: Tensors, state: TrainState) -> OptimizerState | None:
    """The optimiser's state in a checkpoint.

    Raises:
        Damaged: if it is none for the optimiser of `state`.
    """
    if state.optimizer is None:
        return None
    try:
        table = parse_object(files[OPTIMIZER], where=OPTIMIZER) if OPTIMIZER in files else None
    except InputError as error:
        raise Damaged(str(error)) from None
    return unpack_optimizer(tensors, table, state.optimizer, state.meta)


def _written(progress: Progress) -> bytes:
    return json.dumps(asdict(progress), indent=2).encode()


def progress_of(files: Mapping[str, bytes]) -> Progress:
    """What the files of a checkpoint say of its run; `Damaged` if that cannot be read."""
    try:
        return _PROGRESS.validate_python(parse_object(files[PROGRESS], where=PROGRESS))
    except InputError as error:
        raise Damaged(str(error)) from None
    except ValidationError as error:
        raise Damaged(explain(error, where=PROGRESS)) from None


def copies(meta: Tensors) -> Tensors:
    """Copies without gradient, on the same device."""
    return {name: tensor.detach().clone() for name, tensor in meta.items()}


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


def _device(state: TrainState) -> torch.device:
    return next((tensor.device for tensor in state.meta.values()), CPU)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()


def _restore(state: TrainState, tensors: Tensors, optimizer: OptimizerState | None) -> None:
    with torch.no_grad():
        for name, parameter in state.meta.items():
            parameter.copy_(tensors[f"meta/{name}"])
    if state.optimizer is not None and optimizer is not None:
        optimizer.put(state.optimizer)
