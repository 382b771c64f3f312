"""Checkpoints: meta-parameters and optimiser state as safetensors, the rest as JSON, checksummed, manifest last."""

import json
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from metaray.algorithms.context import Tensors
from metaray.manifest import MANIFEST, Damaged, sealed, unsealed
from metaray.training.outer_loop import TrainState
from metaray.training.storage import Storage

FOLDER = "checkpoints"
NAME = re.compile(r"^step-\d{9}$")


@dataclass(frozen=True)
class Progress:
    """What a run knows about itself besides its tensors.

    Attributes:
        step: the next step.
        best_step: the checkpoint with the highest meta-val score so far; None before the first meta-val.
        best_score: that score.
        environment: versions and CPU capability that the bits may depend on.
    """

    step: int = 0
    best_step: int | None = None
    best_score: float | None = None
    environment: dict[str, str] = field(default_factory=dict)


def environment() -> dict[str, str]:
    """Library versions and the CPU's vector capability: results may differ in the last bits where these differ."""
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def save_checkpoint(storage: Storage, state: TrainState, progress: Progress) -> str:
    """Write the checkpoint of `state.step`; returns its name."""
    name = checkpoint_name(state.step)
    tensors = {f"meta/{key}": _plain(tensor) for key, tensor in state.meta.items()}
    tensors.update(_optimizer_tensors(state))
    record = {
        "step": state.step,
        "best_step": progress.best_step,
        "best_score": progress.best_score,
        "environment": environment(),
    }
    files = {"state.safetensors": save(tensors), "progress.json": json.dumps(record, indent=2).encode()}
    storage.write_folder(f"{FOLDER}/{name}", sealed(files))
    return name


def load_checkpoint(storage: Storage, state: TrainState, step: int | None = None) -> Progress | None:
    """Load a checkpoint into `state`, in place.

    Args:
        storage: of the run.
        state: as `initial_state` made it.
        step: which one; None takes the newest that is whole.

    Returns:
        Its progress, or None where there is no whole checkpoint.

    Raises:
        Damaged: if the one asked for by `step` is not whole.
    """
    candidates = [step] if step is not None else sorted(saved_steps(storage), reverse=True)
    for candidate in candidates:
        folder = f"{FOLDER}/{checkpoint_name(candidate)}"
        try:
            files = unsealed(lambda name, folder=folder: storage.read(f"{folder}/{name}"))  # type: ignore[misc]
        except Damaged:
            if step is not None:
                raise
            continue
        _restore(state, load(files["state.safetensors"]))
        record: dict[str, Any] = json.loads(files["progress.json"])
        state.step = record["step"]
        return Progress(**record)
    return None


def saved_steps(storage: Storage) -> list[int]:
    """Steps that have a finished checkpoint, ascending."""
    names = [name for name in storage.names(FOLDER) if NAME.match(name)]
    return sorted(int(n.removeprefix("step-")) for n in names if storage.exists(f"{FOLDER}/{n}/{MANIFEST}"))


def keep_checkpoints(storage: Storage, keep: Iterable[int]) -> None:
    """Delete finished checkpoints other than those of the steps in `keep`."""
    kept = set(keep)
    for step in saved_steps(storage):
        if step not in kept:
            storage.delete_folder(f"{FOLDER}/{checkpoint_name(step)}")


def checkpoint_name(step: int) -> str:
    """The folder of a step's checkpoint, below `FOLDER`."""
    return f"step-{step:09d}"


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()


def _optimizer_tensors(state: TrainState) -> Tensors:
    if state.optimizer is None:
        return {}
    found = {}
    for name, parameter in state.meta.items():
        for key, value in state.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                found[f"optimizer/{key}/{name}"] = _plain(value)
    return found


def _restore(state: TrainState, tensors: Tensors) -> None:
    with torch.no_grad():
        for name, parameter in state.meta.items():
            parameter.copy_(tensors[f"meta/{name}"])
    for full, value in tensors.items():
        part, _, rest = full.partition("/")
        if part == "optimizer" and state.optimizer is not None:
            key, _, name = rest.partition("/")
            parameter = state.meta[name]
            # Adam keeps its step counter on the CPU; moments live with their parameter.
            place = torch.device("cpu") if key == "step" else parameter.device
            state.optimizer.state[parameter][key] = value.to(place)
