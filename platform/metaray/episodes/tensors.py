"""Episodes as tensors on a device."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaray.data.draws import Split
from metaray.data.source import Source
from metaray.episodes.episode import MetaBatch
from metaray.episodes.inputs import Inputs, mapped, take


class Examples(NamedTuple):
    """Inputs and targets of one side of an episode.

    Attributes:
        x: [n, *feature], or [B, n, *feature] in a chunk; or a flat dict of named tensors with these leading axes.
        y: [n] int64 labels, in regression [n, target_size] float32; with a leading B in a chunk.
    """

    x: Inputs
    y: Tensor


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
    batch: MetaBatch, chunk_size: int, device: torch.device, source: Source, split: Split
) -> Iterator[TensorEpisode]:
    """Cut a meta-batch into chunks of `chunk_size` episodes (the last may be smaller), each in storage of its own.

    Inputs cross to the device compact and are normalised there. With `chunk_size` 1 a chunk has no leading axis.
    """
    preprocessing, places = source.preprocessing, source.places(split, batch.class_ids)
    for start in range(0, len(batch), chunk_size):
        rows: slice | int = start if chunk_size == 1 else slice(start, start + chunk_size)
        support_x, query_x = (
            mapped(partial(_copy, device=device), take(x, rows)) for x in (batch.support_x, batch.query_x)
        )
        yield TensorEpisode(
            support=Examples(preprocessing.normalize(support_x), _copy(batch.support_y[rows], device)),
            query=Examples(preprocessing.normalize(query_x), _copy(batch.query_y[rows], device)),
            seed=_copy(np.asarray(batch.seed[rows]).view(np.int64), device),
            classes=_copy(places[rows], device),
        )
