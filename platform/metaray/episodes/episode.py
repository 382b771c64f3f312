"""What an episode is.

Shape letters, used everywhere in metaray:

    B  episodes in a meta-batch (or in a chunk of one)
    N  ways: classes in an episode
    K  shots: support examples a class
    Q  queries: query examples a class
    *feature  the shape of one example, for images (channels, height, width)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from metaray.config import Config
from metaray.data.task import Side, Task


class EpisodeSpec(Config):
    """How many classes an episode has, and how many examples of each.

    Attributes:
        ways: classes, N; 1 where tasks are regression.
        shots: support examples a class, K.
        queries: query examples a class, Q.
    """

    ways: int = Field(default=1, ge=1)
    shots: int = Field(ge=1)
    queries: int = Field(ge=1)

    def __str__(self) -> str:
        queries = f"{self.queries} {'query' if self.queries == 1 else 'queries'}"
        if self.ways == 1:
            return f"{self.shots}-shot, {queries}"
        return f"{self.ways}-way {self.shots}-shot, {queries} a class"


class Episode(NamedTuple):
    """One sampled task; a pure function of (source, spec, split, seed, index). Or a stack of consecutive ones of equal
    shape, whose arrays are contiguous and all have a leading axis B.

    Attributes:
        task: its support and query.
        index: the episode's place in its split's endless sequence; [B] int64 in a stack.
        seed: 64 bits of the episode's own, from which everything random in its training step derives; [B] uint64.
    """

    task: Task
    index: Any
    seed: Any


@dataclass(frozen=True)
class MetaBatch:
    """Consecutive episodes, of equal shape or not.

    Attributes:
        stacks: of consecutive episodes of equal shape, each as long as can be.
    """

    stacks: tuple[Episode, ...]

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def index(self) -> NDArray[np.int64]:
        """[B] the places of all episodes."""
        return np.concatenate([stack.index for stack in self.stacks])

    @cached_property
    def seed(self) -> NDArray[np.uint64]:
        """[B] the seeds of all episodes."""
        return np.concatenate([stack.seed for stack in self.stacks])

    def rows(self, start: int, stop: int) -> Iterator[Episode]:
        """The episodes at places start .. stop-1 of this batch: one stack where all are of equal shape, else as many
        stacks of one as there are episodes."""
        ends = np.cumsum([len(stack.index) for stack in self.stacks])
        first, last = np.searchsorted(ends, [start, stop - 1], side="right")
        if first == last:
            offset = start - (ends[first] - len(self.stacks[first].index))
            yield part(self.stacks[first], slice(offset, offset + stop - start))
            return
        for place in range(start, stop):
            yield from self.rows(place, place + 1)


def stack(episodes: Sequence[Episode]) -> MetaBatch:
    """Put consecutive episodes together.

    Raises:
        ValueError: if there is none.
    """
    if not episodes:
        raise ValueError("no episodes to stack")
    return MetaBatch(tuple(_stacked(list(alike)) for _, alike in groupby(episodes, key=shape_of)))


def part(stacked: Episode, rows: slice | int) -> Episode:
    """Some episodes of a stack, or a single one without the leading axis; views."""
    (support, query, class_ids), index, seed = stacked
    support, query = (Side(side.x[rows], side.y[rows]) for side in (support, query))
    return Episode(Task(support, query, class_ids[rows]), index[rows], seed[rows])


def shape_of(episode: Episode) -> tuple[tuple[int, ...], ...]:
    """By what episodes can be stacked: the shapes of their arrays."""
    support, query, class_ids = episode.task
    return (support.x.shape, support.y.shape, query.x.shape, query.y.shape, class_ids.shape)


def _stacked(episodes: Sequence[Episode]) -> Episode:
    support, query = (
        Side(np.stack([side.x for side in alike]), np.stack([side.y for side in alike]))
        for alike in zip(*((e.task.support, e.task.query) for e in episodes), strict=True)
    )
    return Episode(
        Task(support, query, np.stack([e.task.class_ids for e in episodes])),
        index=np.array([e.index for e in episodes], dtype=np.int64),
        seed=np.array([e.seed for e in episodes], dtype=np.uint64),
    )
