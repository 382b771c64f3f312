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
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaray.data.episode_spec import EpisodeSpec as EpisodeSpec
from metaray.data.inputs import take
from metaray.data.task import Side, Task, stacks_of


class Episode(NamedTuple):
    """One sampled task, a pure function of (source, spec, split, seed, index); or a stack of episodes.

    A stack holds B consecutive episodes of equal shape; its arrays are contiguous and have a leading axis B.

    Attributes:
        task: Support and query set of the task.
        index: Index of the episode in the endless sequence of its split; int64 [B] in a stack.
        seed: Seed of the episode (64 bits), from which all randomness of its training step derives; uint64 [B] in a
            stack.
    """

    task: Task
    index: Any
    seed: Any


@dataclass(frozen=True)
class MetaBatch:
    """Consecutive episodes, of equal shape or not.

    Attributes:
        stacks: Stacks of consecutive episodes of equal shape, each as long as can be.
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
        """The episodes at places start .. stop-1: one stack if all have equal shape, else a stack for each."""
        ends = np.cumsum([len(stack.index) for stack in self.stacks])
        first, last = np.searchsorted(ends, [start, stop - 1], side="right")
        if first == last:
            offset = start - (ends[first] - len(self.stacks[first].index))
            yield part(self.stacks[first], slice(offset, offset + stop - start))
            return
        for place in range(start, stop):
            yield from self.rows(place, place + 1)


def stack(episodes: Sequence[Episode]) -> MetaBatch:
    """Stack consecutive episodes into a meta-batch.

    Raises:
        ValueError: If there are no episodes.
    """
    if not episodes:
        raise ValueError("no episodes to stack")
    indices, seeds = [one.index for one in episodes], [one.seed for one in episodes]
    return meta_batch(stacks_of(one.task for one in episodes), indices, np.array(seeds, dtype=np.uint64))


def meta_batch(stacks: Sequence[Task], indices: Sequence[int], seeds: NDArray[np.uint64]) -> MetaBatch:
    """Turn stacks of tasks into a meta-batch of episodes.

    Args:
        stacks: Stacks of consecutive tasks of equal shape, each as long as possible.
        indices: Indices of the episodes [B].
        seeds: Seeds of the episodes [B].
    """
    index = np.array(indices, dtype=np.int64)
    ends = list(accumulate((len(tasks.class_ids) for tasks in stacks), initial=0))
    rows = [slice(start, stop) for start, stop in pairwise(ends)]
    return MetaBatch(tuple(Episode(tasks, index[some], seeds[some]) for tasks, some in zip(stacks, rows, strict=True)))


def part(whole: Episode, rows: slice | int) -> Episode:
    """Views of some episodes of a stack, or of a single one without the leading axis."""
    (support, query, class_ids), index, seed = whole
    support, query = (Side(take(side.x, rows), side.y[rows]) for side in (support, query))
    return Episode(Task(support, query, class_ids[rows]), index[rows], seed[rows])
