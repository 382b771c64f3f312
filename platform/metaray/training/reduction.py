"""Summing the outer gradient over ranks: one flat buffer, with losses and flags riding along."""

from abc import ABC, abstractmethod

import torch
import torch.distributed as dist
from torch import Tensor

from metaray.algorithms.context import Tensors


class Reducer(ABC):
    """Sums buffers over the ranks of a run.

    Attributes:
        rank: of this process, 0 .. world_size-1.
        world_size: number of processes.
    """

    rank: int = 0
    world_size: int = 1

    @abstractmethod
    def sum_(self, buffer: Tensor) -> Tensor:
        """Replace a flat buffer by its sum over all ranks, in place; returns it."""


class LocalReducer(Reducer):
    """One rank: the sum is the buffer itself."""

    def sum_(self, buffer: Tensor) -> Tensor:
        """Nothing to do."""
        return buffer


class GroupReducer(Reducer):
    """Plain all-reduce over the default `torch.distributed` process group (gloo on CPUs, NCCL on GPUs)."""

    def __init__(self) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()

    def sum_(self, buffer: Tensor) -> Tensor:
        """One all-reduce."""
        dist.all_reduce(buffer)
        return buffer


def flatten(gradient: Tensors, *riders: Tensor) -> Tensor:
    """Gradients, then the riders (losses, flags), in one contiguous buffer."""
    return torch.cat([*(g.reshape(-1) for g in gradient.values()), *(rider.reshape(-1) for rider in riders)])


def unflatten(buffer: Tensor, gradient: Tensors, *riders: Tensor) -> tuple[Tensors, list[Tensor]]:
    """The inverse of `flatten`: views shaped as `gradient` and `riders`, whose values are ignored."""
    shapes = [tensor.shape for tensor in (*gradient.values(), *riders)]
    pieces = torch.split(buffer, [shape.numel() for shape in shapes])
    parts = [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
    count = len(gradient)
    return dict(zip(gradient, parts[:count], strict=True)), parts[count:]
