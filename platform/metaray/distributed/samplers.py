"""Sampler actors: Ray processes that sample episodes ahead of the trainers."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from metaray import tracebacks
from metaray.data import SOURCES
from metaray.data.source import SameData, Source
from metaray.episodes.episode import EpisodeSpec, MetaBatch
from metaray.episodes.prefetch import Arrival, credit_window
from metaray.episodes.sampler import sample_meta_batch
from metaray.errors import InputError
from metaray.imports import FOLDERS, dump_kind, import_from, parse_kind

CREDITS = 3


def enter(folder: str) -> None:
    """Let relative paths and import paths mean what they meant to the driver, where its folders are on this node too.

    Args:
        folder: The driver's working directory.
    """
    import_from(*(Path(one) for one in os.environ.get(FOLDERS, "").split(os.pathsep) if one))
    if Path(folder).is_dir():
        os.chdir(folder)


class SamplingFailed(RuntimeError):
    """A source raised something in a sampler's process.

    Attributes:
        told: Where that came up, in few lines.
        traceback: The whole of it, which exceptions lose on their way to another process.
    """

    def __init__(self, summary: str, told: str, traceback: str) -> None:
        super().__init__(summary)
        self.told, self.traceback = told, traceback

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (str(self), self.told, self.traceback)


class Sampler:
    """What a sampler actor does; a plain class, so that it is tested without Ray.

    It holds no state besides its opened source: any sampler gives the same answer to the same question.
    """

    def __init__(
        self,
        source: dict[str, Any],
        fingerprint: str,
        spec: dict[str, Any],
        seed: int,
        folder: str = ".",
        verify: bool = False,
    ) -> None:
        enter(folder)
        self._source = parse_kind(source, SOURCES, Source, what="source")
        require_same_data(self._source, fingerprint, verify=verify)
        self._data, self._spec, self._seed = SameData(self._source), EpisodeSpec(**spec), seed

    def sample(self, start: int, stop: int, rows: bool = False) -> MetaBatch:
        """The meta-training episodes `start .. stop-1`, with their examples or as rows of the store.

        Raises:
            SamplingFailed: If the source raises anything.
        """
        try:
            indices = range(start, stop)
            found = sample_meta_batch(self._source, self._spec, "meta-train", self._seed, indices, rows=rows)
            self._data.check()
            return found
        except Exception as error:
            summary = f"sampling episodes {start} to {stop - 1}: {tracebacks.summary(error)}"
            raise SamplingFailed(summary, tracebacks.told(error), tracebacks.whole(error)) from error


def require_same_data(source: Source, fingerprint: str, *, verify: bool = False) -> None:
    """A source is opened anew on each node: it must hold there what it holds where the run was started.

    Args:
        source: Source as the driver describes it.
        fingerprint: Fingerprint that the driver found.
        verify: Compare the data with their fingerprint, also where this node did so before.

    Raises:
        InputError: If it does not.
    """
    if verify:
        source.verify()
    if source.fingerprint != fingerprint:
        raise InputError(
            f"the source on node {ray.util.get_node_ip_address()} holds other data than the driver's: its fingerprint "
            f"is {source.fingerprint[:12]}... instead of {fingerprint[:12]}..."
        )


def start_samplers(
    source: Source,
    spec: EpisodeSpec,
    seed: int,
    *,
    count: int,
    nodes: Sequence[str] | None = None,
    verify: bool = False,
) -> list[Any]:
    """Create sampler actors. Call from the driver: an actor that a worker creates dies with it.

    They take no CPU from the scheduler, restart without limit, and repeat a call that was lost.

    Args:
        source: Where tasks come from.
        spec: Spec of the episodes.
        seed: Seed of the sequence of episodes.
        count: Number of actors.
        nodes: Ids of those that they are spread over; when one of them is gone, any will do. None leaves it to Ray.
        verify: Whether the data are compared with their fingerprint, also where that was done before.
    """
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Sampler)
    arguments = (dump_kind(source, SOURCES), source.fingerprint, spec.model_dump(), seed, str(Path.cwd()), verify)
    if not nodes:
        return [actor.remote(*arguments) for _ in range(count)]
    places = [NodeAffinitySchedulingStrategy(nodes[i % len(nodes)], soft=True) for i in range(count)]
    return [actor.options(scheduling_strategy=place).remote(*arguments) for place in places]


def actor_stream(
    samplers: Sequence[Any],
    share: Callable[[int], range],
    *,
    start: int,
    stop: int,
    depth: int = CREDITS,
    rows: bool = False,
) -> Iterator[Arrival]:
    """One rank's shares of steps `start .. stop-1`, asked of the samplers in turn, one object a step.

    Args:
        samplers: Actors of `start_samplers`.
        share: The episode indices of this rank at a step.
        start: First step.
        stop: One past the last step.
        depth: Credits.
        rows: Episodes come as rows of the store.
    """

    offset = share(0).start

    def request(step: int) -> Any:
        indices = share(step)
        # In turn, each rank from another one on.
        return samplers[(step + offset) % len(samplers)].sample.remote(indices.start, indices.stop, rows)

    return credit_window(request, ray.get, start=start, stop=stop, depth=depth)
