"""Summing the outer gradient over chunks and ranks: in one fixed tree, so that no bit depends on who computed what.

The meta-batch is cut into chunks 0 .. C-1. Their buffers (gradient, losses, flags) are the leaves of a binary tree
whose node (level, place) covers the chunks place * 2**level .. (place+1) * 2**level - 1; chunks from C on do not exist,
and a node with one child is that child. A rank adds up the maximal nodes inside its own contiguous run of chunks. Any
cut into runs leads to the same additions in the same order, so to the same bits.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from metaray.algorithms.context import Tensors
from metaray.episodes.sampler import chunks_of
from metaray.phases import phase

Reduction = Literal["exact", "fast"]


class LostRank(RuntimeError):
    """A collective broke off, most likely because another rank is gone."""


class TreeNode(NamedTuple):
    """Sum over the chunks from `place * 2**level` on, 2**level of them; None if none of these exists."""

    level: int
    place: int
    value: Tensor | None


class TreeSum:
    """Adds up neighbouring nodes of the fixed tree, which are given from left to right.

    Attributes:
        nodes: Maximal nodes so far, at most two of each level.
    """

    def __init__(self) -> None:
        self.nodes: list[TreeNode] = []

    def push(self, level: int, place: int, value: Tensor | None) -> None:
        """Add the next node; its value may be overwritten by a sum."""
        while place % 2 and self.nodes and self.nodes[-1][:2] == (level, place - 1):
            left = self.nodes.pop().value
            value = left if value is None or left is None else left.add_(value)
            level, place = level + 1, place // 2
        self.nodes.append(TreeNode(level, place, value))

    def close(self, count: int) -> None:
        """Complete the sums at the edge of the tree: no chunk follows chunk `count - 1`."""
        for index in range(count, 1 << (count - 1).bit_length()):
            self.push(0, index, None)


def spans(chunks: range) -> list[tuple[int, int]]:
    """Level and place of the maximal nodes inside a run of chunks, as `TreeSum` makes them."""
    tree = TreeSum()
    for index in chunks:
        tree.push(0, index, None)
    return [(level, place) for level, place, _ in tree.nodes]


class Reducer(ABC):
    """Sums buffers over the ranks of a run.

    Attributes:
        rank: Rank of this process, 0 .. world_size-1.
        world_size: Number of processes.
    """

    rank: int = 0
    world_size: int = 1

    @abstractmethod
    def sum_(self, buffer: Tensor) -> Tensor:
        """Replace a flat buffer by its sum over all ranks, in place and in no fixed order; returns the buffer.

        Raises:
            LostRank: If another rank is lost.
        """

    @abstractmethod
    def join(self, nodes: Sequence[TreeNode], count: int) -> Tensor:
        """The root of the fixed tree, on every rank.

        Args:
            nodes: Maximal nodes of this rank, with flat buffers of one size.
            count: Number of all chunks, shared out by `chunks_of`.

        Returns:
            The sum, in a buffer that is valid until the next call.

        Raises:
            LostRank: If another rank is lost.
        """

    def mark(self, doing: str) -> None:  # noqa: B027 - most have nobody to tell
        """Tell whoever watches over this rank what it does from now on."""


class LocalReducer(Reducer):
    """The reducer of a single rank."""

    def sum_(self, buffer: Tensor) -> Tensor:
        """Return the buffer: there is nothing to add."""
        return buffer

    def join(self, nodes: Sequence[TreeNode], count: int) -> Tensor:
        """Return the only node."""
        return _root(nodes, count)


class GroupReducer(Reducer):
    """The default `torch.distributed` process group (gloo on CPUs, NCCL on GPUs).

    `join` sends each rank its slice of every node, lets it add up the tree of that slice, and gathers the slices: a
    rank sends, and receives, about 2P(W-1)/W values for P parameters and W ranks whose runs are aligned, as a ring
    all-reduce does.
    """

    def __init__(self) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self._buffers: dict[str, Tensor] = {}

    def sum_(self, buffer: Tensor) -> Tensor:
        """Sum by one all-reduce."""
        self.mark("reducing")
        try:
            dist.all_reduce(buffer)
        except RuntimeError as error:
            raise _lost(error) from error
        self.mark("computing")
        return buffer

    def join(self, nodes: Sequence[TreeNode], count: int) -> Tensor:
        """Sum by an all-to-all of slices, the fixed tree on one slice, and an all-gather."""
        if self.world_size == 1:
            return LocalReducer().join(nodes, count)
        theirs = [spans(chunks_of(count, rank, self.world_size)) for rank in range(self.world_size)]
        assert theirs[self.rank] == [node[:2] for node in nodes]
        own = [node.value for node in nodes]
        size = len(_present(own))
        width = -(-size // self.world_size)
        sent = self._buffer("sent", self.world_size * len(own) * width, like=_present(own))
        for rank, part in enumerate(sent.view(self.world_size, len(own), width)):
            for row, value in zip(part, own, strict=True):
                piece = _present([value])[rank * width : (rank + 1) * width]
                row[: len(piece)] = piece
        got = self._buffer("got", sum(map(len, theirs)) * width, like=sent)
        whole = self._buffer("whole", self.world_size * width, like=sent)
        self.mark("reducing")
        try:
            dist.all_to_all_single(got, sent, [len(s) * width for s in theirs], [len(own) * width] * self.world_size)
            rows = zip(chain.from_iterable(theirs), got.view(-1, width), strict=True)
            root = _root([TreeNode(level, place, row) for (level, place), row in rows], count)
            dist.all_gather_into_tensor(whole, root)
        except RuntimeError as error:
            raise _lost(error) from error
        self.mark("computing")
        return whole[:size]

    def _buffer(self, name: str, size: int, like: Tensor) -> Tensor:
        """Memory that is kept from step to step: new pages cost more than the sums."""
        if name not in self._buffers or len(self._buffers[name]) != size:
            self._buffers[name] = like.new_zeros(size)
        return self._buffers[name]


def _root(nodes: Iterable[TreeNode], count: int) -> Tensor:
    """What all nodes of all ranks, from left to right, add up to."""
    tree = TreeSum()
    for node in nodes:
        tree.push(*node)
    tree.close(count)
    (root,) = tree.nodes
    return _present([root.value])


def _present(values: Sequence[Tensor | None]) -> Tensor:
    value = values[0]
    assert value is not None
    return value


def _lost(error: RuntimeError) -> LostRank:
    return LostRank(f"the other workers do not answer any more: {error}")


def total(leaves: Iterable[Tensor], chunks: range, count: int, reducer: Reducer, reduction: Reduction) -> Tensor:
    """Sum the buffers of all chunks over all ranks.

    Args:
        leaves: Flat buffers of this rank's chunks, in order; they may be overwritten.
        chunks: Numbers of these chunks.
        count: Number of all chunks.
        reducer: Reducer over the ranks.
        reduction: "exact" uses the fixed tree. "fast" adds up a rank's chunks in order, then all-reduces; its bits
            depend on the number of ranks.

    Returns:
        The sum, valid until the next call.
    """
    if reduction == "fast":
        buffer = None
        for leaf in leaves:
            reducer.mark("computing")
            with phase("reduction"):
                buffer = leaf if buffer is None else buffer.add_(leaf)
        assert buffer is not None
        with phase("reduction"):
            return reducer.sum_(buffer)
    tree = TreeSum()
    for index, leaf in zip(chunks, leaves, strict=True):
        reducer.mark("computing")
        with phase("reduction"):
            tree.push(0, index, leaf)
    with phase("reduction"):
        return reducer.join(tree.nodes, count)


def flatten(gradient: Tensors, *riders: Tensor) -> Tensor:
    """Gradients, then the riders (losses, flags), in one new contiguous buffer."""
    return torch.cat([*(g.reshape(-1) for g in gradient.values()), *(rider.reshape(-1) for rider in riders)])


def unflatten(buffer: Tensor, gradient: Tensors, *riders: Tensor) -> tuple[Tensors, list[Tensor]]:
    """The inverse of `flatten`: views shaped as `gradient` and `riders`, whose values are ignored."""
    shapes = [tensor.shape for tensor in (*gradient.values(), *riders)]
    pieces = torch.split(buffer, [shape.numel() for shape in shapes])
    parts = [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
    count = len(gradient)
    return dict(zip(gradient, parts[:count], strict=True)), parts[count:]
