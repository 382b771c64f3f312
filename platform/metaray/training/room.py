"""Whether a GPU has room for what a worker computes there: found out on the CPU, before it is tried."""

from collections.abc import Sequence

import torch

from metaray.episodes.resident import free_bytes, mib
from metaray.episodes.sampler import sample_meta_batch
from metaray.episodes.tensors import TensorEpisode, chunks
from metaray.experiment.experiment import Experiment
from metaray.models.model import seeded
from metaray.records.train_state import TrainState
from metaray.training.execution.strategy import Strategy
from metaray.training.live_memory import LiveMemory
from metaray.training.outer_loop import chunk_size_of, context_of

CPU, GPU = torch.device("cpu"), torch.device("cuda")
COPIES = 5
"""Copies of the meta-parameters in a worker: initial, now, best so far, and two gradients while they are summed."""
MOMENTS = 2
"""Copies of the meta-parameters in an optimiser's state, at most."""
MEASURED = 2
"""Episodes that are mapped over to see what each of many takes."""


def peak_bytes(experiment: Experiment, state: TrainState, parts: Sequence[TensorEpisode], *, unfolds: bool) -> int:
    """Tensors that live at the height of the meta-gradient of the last step.

    Args:
        experiment: Experiment to train.
        state: Initial state of its training, on the CPU.
        parts: Episodes of the step, in parts that are computed one after the other.
        unfolds: Whether convolutions of episodes that are mapped over are unfolded, as on a GPU: that takes more.
    """
    context = context_of(experiment, state.network, training=True, step=max(0, experiment.num_steps - 1))
    strategy = Strategy("batched", CPU, recomputes=experiment.recompute_inner_steps, unfolds=unfolds)
    with LiveMemory() as memory:
        for part in parts:
            strategy.meta_gradient(experiment.algorithm, state.meta, part, context.of(part))
    return int(memory.most_bytes)


def gpu_episode_bytes(experiment: Experiment, state: TrainState) -> int | None:
    """What each episode of a chunk takes on a GPU, as far as the CPU can tell; None where none are mapped over."""
    if chunk_size_of(experiment, GPU) == 1 or experiment.execution == "each":
        return None
    indices, augmentation = range(MEASURED), experiment.augmentation
    batch = sample_meta_batch(experiment.source, experiment.episodes, "meta-train", experiment.seed, indices)
    parts = next(chunks(batch, MEASURED, CPU, experiment.source, "meta-train", augmentation))
    if len(parts) > 1:  # of unequal shapes: one by one
        return None
    try:
        with seeded(0):
            return -(-peak_bytes(experiment, state, parts, unfolds=True) // MEASURED)
    except RuntimeError:  # it cannot be mapped over, which is for its own check to say
        return None


def room_lacking(experiment: Experiment, state: TrainState, device: torch.device) -> str | None:
    """What looks wrong, where a GPU that is here has less free than a worker takes; None where it has room.

    Args:
        experiment: Experiment to train.
        state: Initial state of its training, on the CPU.
        device: Device of this process.
    """
    each = gpu_episode_bytes(experiment, state) if device.type == "cuda" and torch.cuda.is_available() else None
    if each is None:
        return None
    size, free = chunk_size_of(experiment, device), free_bytes(device)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in state.meta.values())
    needed = (COPIES + MOMENTS) * weights + size * each
    if needed <= free:
        return None
    remedy = "recompute_inner_steps=true, or a smaller chunk_size"
    if experiment.recompute_inner_steps:
        remedy = "a smaller chunk_size"
    return (
        f"a worker takes about {mib(needed)} besides torch itself and the data ({mib(each)} for each of {size} "
        f"episodes at once), but {mib(free)} are free on the device; less take {remedy}"
    )
