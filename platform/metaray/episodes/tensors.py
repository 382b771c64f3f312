"""Episodes as tensors on a device."""

from collections.abc import Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaray.data.draws import Split
from metaray.data.preprocessing import Preprocessing
from metaray.data.rows import are_rows
from metaray.data.source import Source
from metaray.data.task import Side
from metaray.episodes.augmentation import Augmentation, SideName, normalized
from metaray.episodes.episode import Episode, MetaBatch, part
from metaray.episodes.inputs import mapped
from metaray.episodes.resident import Resident, resident

Examples = Side[Tensor]
"""Inputs [n, *feature] and targets [n] or [n, target_size] of a support or query set; [B, n, ...] in a chunk."""


class TensorEpisode(NamedTuple):
    """One episode as an algorithm sees it; or a chunk of B episodes with a leading axis B.

    Attributes:
        support: Support set of N*K examples.
        query: Query set of N*Q examples.
        seed: Seed of the episode, an int64 scalar with the bits of the uint64 seed; [B] in a chunk.
        classes: Index of each class among the classes of its split, int64 [N]; [B, N] in a chunk.
    """

    support: Examples
    query: Examples
    seed: Tensor
    classes: Tensor


def _copy(array: NDArray[Any], device: torch.device) -> Tensor:
    # Always a fresh allocation: kernels may round differently at other alignments, and what Ray hands out is read-only.
    tensor = torch.empty(array.shape, dtype=_torch_type(array.dtype), pin_memory=device.type == "cuda")
    tensor.numpy()[...] = array
    return tensor.to(device, non_blocking=True)


@cache
def _torch_type(numpy_type: np.dtype[Any]) -> torch.dtype:
    found: torch.dtype = getattr(torch, numpy_type.name)
    return found


def chunks(
    batch: MetaBatch,
    chunk_size: int,
    device: torch.device,
    source: Source,
    split: Split,
    augmentation: Augmentation | None = None,
) -> Iterator[tuple[TensorEpisode, ...]]:
    """Cut a meta-batch into chunks of `chunk_size` episodes (the last may be smaller), each in storage of its own.

    Compact inputs are copied to the device, then normalised there, and augmented if asked for. Inputs given as row
    indices are gathered from the examples on the device.

    Yields:
        One chunk with a leading axis B; if its episodes differ in shape, or `chunk_size` is 1, its episodes in order,
        without that axis.
    """
    # Once a batch: a source looks after its file whenever it is asked for anything.
    preprocessing = source.preprocessing
    home = resident(source, device) if are_rows(batch.stacks[0].task.support.x) else None
    batch = MetaBatch(tuple(_placed(stack, source, split) for stack in batch.stacks))
    for start in range(0, len(batch), chunk_size):
        rows = list(batch.rows(start, min(start + chunk_size, len(batch))))
        alone = chunk_size == 1 or len(rows) > 1
        yield tuple(
            _on_device(part(one, 0) if alone else one, device, preprocessing, augmentation, home) for one in rows
        )


def _placed(stack: Episode, source: Source, split: Split) -> Episode:
    """The stack with the place of each class instead of its id."""
    return stack._replace(task=stack.task._replace(class_ids=source.places(split, stack.task.class_ids)))


def _on_device(
    episode: Episode,
    device: torch.device,
    preprocessing: Preprocessing,
    augmentation: Augmentation | None,
    home: Resident | None,
) -> TensorEpisode:
    support, query, places = episode.task
    seeds = np.atleast_1d(episode.seed).tolist()

    def side(name: SideName, given: Side[NDArray[Any]]) -> Examples:
        x = mapped(partial(_copy, device=device), given.x)
        x = x if home is None else home.gather(x)
        x = normalized(preprocessing, x, augmentation, name, seeds)
        return Side(x, _copy(given.y, device))

    return TensorEpisode(
        support=side("support", support),
        query=side("query", query),
        seed=_copy(np.asarray(episode.seed).view(np.int64), device),
        classes=_copy(places, device),
    )
