"""The pure sampler: (source, spec, split, seed, index) -> Episode."""

from collections.abc import Iterable

from metaray.data.draws import Draws, Split
from metaray.data.source import Source
from metaray.episodes.episode import Episode, EpisodeSpec, MetaBatch, stack


def sample_episode(source: Source, spec: EpisodeSpec, split: Split, seed: int, index: int) -> Episode:
    """Episode `index` of `split`.

    A pure function of its arguments: no generator outlives the call, so it does not matter which process samples
    which episode, in what order, or how often.

    Args:
        source: where the task comes from.
        spec: ways, shots and queries.
        split: "meta-train", "meta-val" or "meta-test".
        seed: of the whole sequence of episodes.
        index: of this episode.
    """
    draws = Draws(seed, split, index)
    own_seed = int(draws.raw(1)[0])
    task = source.sample_task(draws, split, ways=spec.ways, shots=spec.shots, queries=spec.queries)
    return Episode(
        support_x=task.support_x,
        support_y=task.support_y,
        query_x=task.query_x,
        query_y=task.query_y,
        index=index,
        seed=own_seed,
        class_ids=task.class_ids,
    )


def sample_meta_batch(source: Source, spec: EpisodeSpec, split: Split, seed: int, indices: Iterable[int]) -> MetaBatch:
    """The episodes of `indices`, in that order, stacked."""
    return stack([sample_episode(source, spec, split, seed, index) for index in indices])


def share_of(step: int, meta_batch_size: int, rank: int, world_size: int) -> range:
    """The episode indices that `rank` handles at `step`: a contiguous run of `step*B .. step*B + B - 1`.

    Runs differ by at most one episode where `world_size` does not divide B.
    """
    first = step * meta_batch_size
    start, stop = (meta_batch_size * r // world_size for r in (rank, rank + 1))
    return range(first + start, first + stop)
