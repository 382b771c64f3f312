"""Ranks of small groups, in benchmarks and tests: threads of one process, and how processes of a group part."""

import os
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn
from unittest.mock import patch

import torch.distributed as dist
from torch import Tensor

BARRIER_TIMEOUT_S = 300.0
"""Only for a rank that is lost: an exception of its own breaks the barrier at once."""


def part() -> NoReturn:
    """Leave the process group once all ranks have come so far, and end this process.

    At once: gloo's threads may outlive the group, and in some of Python's ordinary exits that ends in an abort
    ("terminate called without an active exception", torch 2.13), after all work is done.
    """
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


class Threads:
    """`torch.distributed` for threads that stand for ranks, with tensors of any one device.

    Args:
        world_size: number of ranks.
    """

    def __init__(self, world_size: int) -> None:
        self.world_size, self._own = world_size, threading.local()
        self._table: list[Any] = [None] * world_size
        self._barrier = threading.Barrier(world_size, timeout=BARRIER_TIMEOUT_S)

    def get_rank(self) -> int:
        """Of this thread."""
        return int(self._own.rank)

    def get_world_size(self) -> int:
        """Number of ranks."""
        return self.world_size

    def all_to_all_single(self, output: Tensor, given: Tensor, takes: list[int], gives: list[int]) -> None:
        """Each rank's pieces to their ranks."""
        theirs = self._exchange(given.split(gives))
        pieces = [parts[self.get_rank()] for parts in theirs]
        assert [len(piece) for piece in pieces] == takes
        for place, piece in zip(output.split(takes), pieces, strict=True):
            place.copy_(piece)
        self._barrier.wait()

    def all_gather_into_tensor(self, output: Tensor, given: Tensor) -> None:
        """Each rank's tensor to all."""
        for place, piece in zip(output.split(len(given)), self._exchange(given), strict=True):
            place.copy_(piece)
        self._barrier.wait()

    def all_reduce(self, buffer: Tensor) -> None:
        """The sum over the ranks, in their order, to all."""
        total = sum(part.clone() for part in self._exchange(buffer))
        self._barrier.wait()
        assert isinstance(total, Tensor)
        buffer.copy_(total)

    def _exchange(self, mine: Any) -> list[Any]:
        self._table[self.get_rank()] = mine
        self._barrier.wait()
        return list(self._table)

    def run(self, work: Callable[[], Any]) -> list[Any]:
        """What `work` returns on each rank, where `torch.distributed` is this group meanwhile."""
        found: list[Any] = [None] * self.world_size

        def main(rank: int) -> None:
            self._own.rank = rank
            try:
                found[rank] = work()
            except BaseException as error:  # noqa: BLE001 - raised below
                found[rank] = error
                self._barrier.abort()

        names = ("get_rank", "get_world_size", "all_to_all_single", "all_gather_into_tensor", "all_reduce")
        with patch.multiple(dist, **{name: getattr(self, name) for name in names}):
            threads = [threading.Thread(target=main, args=(rank,)) for rank in range(self.world_size)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        failed = [outcome for outcome in found if isinstance(outcome, BaseException)]
        for error in sorted(failed, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
            raise error
        return found
