"""Episodes as tensors on a device."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaray.data.draws import Split
from metaray.data.source import Source
from metaray.data.task import Side
from metaray.episodes.augmentation import SIDES, Augmentation, normalized
from metaray.episodes.episode import Episode, MetaBatch, part

Examples = Side[Tensor]
"""Inputs [n, *feature] and targets [n] or [n, target_size] of one side of an episode; with a leading B in a chunk."""


class TensorEpisode(NamedTuple):
    """One episode (or a chunk of them, with a leading axis B) as an algorithm sees it.

    Attributes:
        support: N*K examples.
        query: N*Q examples.
        seed: [] int64 (the bits of the episode's uint64 seed), or [B].
        classes: [N] int64, the place of each class among those of its split, or [B, N].
    """

    support: Examples
    query: Examples
    seed: Tensor
    classes: Tensor


def _copy(array: NDArray[Any], device: torch.device) -> Tensor:
    # Always a fresh allocation: kernels may round differently at other alignments, and what Ray hands out is read-only.
    tensor = torch.empty(array.shape, dtype=getattr(torch, array.dtype.name), pin_memory=device.type == "cuda")
    tensor.numpy()[...] = array
    return tensor.to(device, non_blocking=True)


def chunks(
    batch: MetaBatch,
    chunk_size: int,
    device: torch.device,
    source: Source,
    split: Split,
    augmentation: Augmentation | None = None,
) -> Iterator[tuple[TensorEpisode, ...]]:
    """Cut a meta-batch into chunks of `chunk_size` episodes (the last may be smaller), each in storage of its own.

    Inputs cross to the device compact and are normalised there, and altered where there is an augmentation.

    Yields:
        One chunk with a leading axis B; where its episodes are of unequal shape, and where `chunk_size` is 1, its
        episodes in their order, without that axis.
    """
    for start in range(0, len(batch), chunk_size):
        rows = list(batch.rows(start, min(start + chunk_size, len(batch))))
        alone = chunk_size == 1 or len(rows) > 1
        yield tuple(_on_device(part(one, 0) if alone else one, device, source, split, augmentation) for one in rows)


def _on_device(
    episode: Episode, device: torch.device, source: Source, split: Split, augmentation: Augmentation | None
) -> TensorEpisode:
    support, query, class_ids = episode.task
    compact = [(_copy(side.x, device), _copy(side.y, device)) for side in (support, query)]
    seeds = np.atleast_1d(np.asarray(episode.seed)).tolist()
    sides = [
        Side(normalized(source.preprocessing, x, augmentation, name, seeds), y)
        for name, (x, y) in zip(SIDES, compact, strict=True)
    ]
    return TensorEpisode(
        support=sides[0],
        query=sides[1],
        seed=_copy(np.asarray(episode.seed).view(np.int64), device),
        classes=_copy(source.places(split, class_ids), device),
    )
