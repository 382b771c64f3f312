"""Sampler actors: Ray processes that sample episodes ahead of the trainers."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray

from metaray.data import SOURCES
from metaray.data.source import Source
from metaray.episodes.episode import EpisodeSpec, MetaBatch
from metaray.episodes.prefetch import Arrival, credit_window
from metaray.episodes.sampler import sample_meta_batch, share_of
from metaray.imports import dump_kind, parse_kind

CREDITS = 3


def enter(folder: str) -> None:
    """Let relative paths mean what they meant to the driver, where its working directory exists on this node too."""
    if Path(folder).is_dir():
        os.chdir(folder)


class Sampler:
    """What a sampler actor does; a plain class, so that it is tested without Ray.

    It holds no state besides its opened source: any sampler gives the same answer to the same question.
    """

    def __init__(
        self, source: dict[str, Any], spec: dict[str, int], seed: int, meta_batch_size: int, folder: str = "."
    ) -> None:
        enter(folder)
        self._source = parse_kind(source, SOURCES, Source, what="source")
        self._spec = EpisodeSpec(**spec)
        self._seed, self._size = seed, meta_batch_size

    def sample(self, step: int, rank: int, world_size: int) -> MetaBatch:
        """The share of `rank` in the meta-batch of meta-training step `step`."""
        indices = share_of(step, self._size, rank, world_size)
        return sample_meta_batch(self._source, self._spec, "meta-train", self._seed, indices)


def start_samplers(source: Source, spec: EpisodeSpec, seed: int, meta_batch_size: int, *, count: int) -> list[Any]:
    """Create sampler actors. Call from the driver: an actor that a worker creates dies with it.

    They take no CPU from the scheduler, restart without limit, and repeat a call that was lost.
    """
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Sampler)
    arguments = (dump_kind(source, SOURCES), spec.model_dump(), seed, meta_batch_size, str(Path.cwd()))
    return [actor.remote(*arguments) for _ in range(count)]


def actor_stream(
    samplers: Sequence[Any], rank: int, world_size: int, *, start: int, stop: int, depth: int = CREDITS
) -> Iterator[Arrival]:
    """One rank's shares of steps `start .. stop-1`, asked of the samplers in turn, one object a step."""

    def request(step: int) -> Any:
        return samplers[(step + rank) % len(samplers)].sample.remote(step, rank, world_size)

    return credit_window(request, ray.get, start=start, stop=stop, depth=depth)
