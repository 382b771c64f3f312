"""Checkpoints: meta-parameters and optimiser state as safetensors, the rest as JSON, checksummed, manifest last."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from metaray.algorithms.context import Tensors, not_finite
from metaray.errors import InputError
from metaray.json_text import parse_object
from metaray.manifest import MANIFEST, Damaged, sealed
from metaray.records.checkpoint_files import (
    CHECKPOINTS_FOLDER,
    PROGRESS,
    STATE,
    Progress,
    checkpoint_name,
    progress_of,
    read_checkpoint,
    saved_steps,
    written,
)
from metaray.records.environment import environment
from metaray.records.optimizer_state import OptimizerState, pack_optimizer, unpack_optimizer
from metaray.records.storage import Storage
from metaray.records.train_state import TrainState

OPTIMIZER = "optimizer.json"
CPU = torch.device("cpu")


class Loaded(NamedTuple):
    """The checkpoint that a run resumes from.

    Attributes:
        progress: Progress of the checkpoint; that of step 0 if there is no checkpoint.
        best: Meta-parameters of the best step.
        damaged: Problem of each newer checkpoint that is damaged, by its step.
    """

    progress: Progress
    best: Tensors
    damaged: dict[int, str]


def save_checkpoint(storage: Storage, state: TrainState, progress: Progress, best: Tensors) -> str:
    """Write the checkpoint of `state.step`, and read it back to verify it; returns its name.

    Each checkpoint is complete in itself: it also holds the best meta-parameters, if these are not the current ones.

    Args:
        storage: Storage of the run.
        state: State to save.
        progress: Progress to save; step and environment are filled in.
        best: Meta-parameters of `progress.best_step`.

    Raises:
        OSError: If the checkpoint cannot be written, or differs when read back; earlier checkpoints are untouched.
    """
    name = checkpoint_name(state.step)
    tensors = {f"meta/{key}": _plain(tensor) for key, tensor in state.meta.items()}
    moments, table = ({}, None) if state.optimizer is None else pack_optimizer(state.optimizer, state.meta)
    tensors.update(moments)
    if progress.best_step not in (None, state.step):
        tensors.update({f"best/{key}": _plain(tensor) for key, tensor in best.items()})
    record = replace(progress, step=state.step, environment=environment(_device(state)))
    files = {STATE: save(tensors), PROGRESS: written(record)}
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
    """Load the newest undamaged checkpoint into `state`, in place.

    Args:
        storage: Storage of the run.
        state: Fresh state, as `initial_state` made it; unchanged if there is no undamaged checkpoint.
        at_most: Largest step of the checkpoint; None takes any.

    Raises:
        OSError: If no checkpoint can be read at all, which is no reason to start again from nothing.
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


def _parsed(files: Mapping[str, bytes], state: TrainState) -> tuple[Tensors, Progress]:
    """The tensors and the rest of a checkpoint, after checking that `state` can go on from them.

    Raises:
        Damaged: If it cannot.
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
        Damaged: If it is none for the optimiser of `state`.
    """
    if state.optimizer is None:
        return None
    try:
        table = parse_object(files[OPTIMIZER], where=OPTIMIZER) if OPTIMIZER in files else None
    except InputError as error:
        raise Damaged(str(error)) from None
    return unpack_optimizer(tensors, table, state.optimizer, state.meta)


def copies(meta: Tensors) -> Tensors:
    """Copies without gradient, on the same device."""
    return {name: tensor.detach().clone() for name, tensor in meta.items()}


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
