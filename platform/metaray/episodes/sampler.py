"""The pure sampler: (source, spec, split, seed, index) -> Episode."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaray.data.draws import Draws, Split
from metaray.data.many_draws import ManyDraws
from metaray.data.source import Source
from metaray.data.task import Side, Task
from metaray.episodes.episode import Episode, EpisodeSpec, MetaBatch, meta_batch
from metaray.errors import InputError
from metaray.tasks import TaskKind

LAST_INDEX = 2**63 - 1
"""Highest index of an episode: tensors and journals count in 64 bits with a sign."""


def sample_episode(source: Source, spec: EpisodeSpec, split: Split, seed: int, index: int) -> Episode:
    """Sample the episode with index `index` of `split`.

    This is a pure function of its arguments: it does not matter which process samples an episode, in what order, or how
    often.

    Args:
        source: Source of the task.
        spec: Ways, shots and queries, or the ranges they are drawn from.
        split: "meta-train", "meta-val" or "meta-test".
        seed: Seed of the whole sequence of episodes.
        index: Index of the episode, 0 .. 2**63 - 1.

    Raises:
        InputError: If the index is out of range, there is no such task, or the sampled task is not of the source's
            kind.
    """
    _require_known(index)
    draws = Draws(seed, split, index)
    own_seed = int(draws.raw(1)[0])
    task = source.sample_task(draws, split, spec)
    source.task.check_task(task.support.y, task.query.y)
    centre = source.task.centre(task.support.y)
    return Episode(task if centre is None else _less(task, centre), index, own_seed)


def sample_meta_batch(
    source: Source, spec: EpisodeSpec, split: Split, seed: int, indices: Iterable[int], *, rows: bool = False
) -> MetaBatch:
    """Sample and stack the episodes with these indices, bit for bit as `sample_episode` does.

    Args:
        source: Source of the tasks.
        spec: Ways, shots and queries, or the ranges they are drawn from.
        split: "meta-train", "meta-val" or "meta-test".
        seed: Seed of the whole sequence of episodes.
        indices: Indices of the episodes, 0 .. 2**63 - 1.
        rows: Whether inputs are row indices of the store instead of examples; see `metaray.data.rows`.

    Raises:
        InputError: If `sample_episode` raises it.
        ValueError: If there are no indices.
    """
    wanted = list(indices)
    if not wanted:
        raise ValueError("no episodes to sample")
    _require_known(min(wanted))
    _require_known(max(wanted))
    draws = ManyDraws(seed, split, wanted)
    own_seeds = draws.raw(1)[:, 0].copy()
    kind = source.task
    stacks = [
        _centred(stack, kind) for stack in (source.sample_rows if rows else source.sample_tasks)(draws, split, spec)
    ]
    return meta_batch(stacks, wanted, own_seeds)


def _require_known(index: int) -> None:
    if not 0 <= index <= LAST_INDEX:
        raise InputError(f"episodes have the indices 0 to 2**63 - 1 (got {index})")


def _centred(stack: Task, kind: TaskKind) -> Task:
    """The tasks of a stack, each checked, and less the centre of its support where the kind has one."""
    for support_y, query_y in zip(stack.support.y, stack.query.y, strict=True):
        kind.check_task(support_y, query_y)
    centres = [kind.centre(support_y) for support_y in stack.support.y]
    known = [centre for centre in centres if centre is not None]
    return _less(stack, np.stack(known)[:, None]) if known else stack


def _less(task: Task, centre: NDArray[Any]) -> Task:
    support, query = (Side(side.x, side.y - centre) for side in (task.support, task.query))
    return task._replace(support=support, query=query)


def chunks_of(count: int, rank: int, world_size: int) -> range:
    """The chunks that `rank` handles, out of `count`: contiguous runs whose lengths differ by at most one."""
    return range(count * rank // world_size, count * (rank + 1) // world_size)


def share_of(step: int, meta_batch_size: int, rank: int = 0, world_size: int = 1, *, chunk_size: int = 1) -> range:
    """The episode indices that `rank` handles at `step`: whole chunks of `step*B .. step*B + B - 1`.

    Args:
        step: Outer step, from 0.
        meta_batch_size: Number of episodes B of a meta-batch.
        rank: Rank of the worker.
        world_size: Number of workers.
        chunk_size: Number of episodes of a chunk; the last chunk of a meta-batch may be smaller.
    """
    first, count = step * meta_batch_size, -(-meta_batch_size // chunk_size)
    mine = chunks_of(count, rank, world_size)
    start, stop = (min(edge * chunk_size, meta_batch_size) for edge in (mine.start, mine.stop))
    return range(first + start, first + stop)
