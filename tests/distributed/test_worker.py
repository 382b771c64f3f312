"""What a rank does around its run, without a cluster; test_trainer.py has the workers."""

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from ray.exceptions import RayTaskError

from metaray.data import SOURCES
from metaray.data.rows import are_rows
from metaray.distributed import worker
from metaray.distributed.samplers import Sampler, SamplingFailed
from metaray.distributed.worker import HeartbeatReducer, _stream
from metaray.episodes.episode import MetaBatch
from metaray.experiment.experiment import Experiment
from metaray.imports import dump_kind
from metaray.training.reduction import GroupReducer, LocalReducer

MakeExperiment = Callable[..., Experiment]


class Method:
    """A remote method that answers at once."""

    def __init__(self, act: Callable[..., Any]) -> None:
        self.remote = act


class FakeSampler:
    """Stands for a sampler actor; notes what it was asked."""

    def __init__(self, experiment: Experiment) -> None:
        source = dump_kind(experiment.source, SOURCES)
        self._sampler = Sampler(source, experiment.source.fingerprint, experiment.episodes.model_dump(), 0)
        self.asked: list[range] = []
        self.sample = Method(self._sample)

    def _sample(self, start: int, stop: int, rows: bool) -> MetaBatch:
        self.asked.append(range(start, stop))
        return self._sampler.sample(start, stop, rows)


class Marked(LocalReducer):
    """One of three ranks, which keeps its marks."""

    rank, world_size = 2, 3

    def __init__(self) -> None:
        self.marks: list[str] = []

    def mark(self, doing: str) -> None:
        self.marks.append(doing)


def at_once(patch: pytest.MonkeyPatch) -> None:
    def get(ref: Any) -> Any:
        return ref

    patch.setattr("ray.get", get)


def test_a_rank_asks_for_its_chunks_and_says_that_it_waits(
    make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch)
    experiment = make_experiment(meta_batch_size=7, chunk_size=2, num_steps=5)
    sampler, reducer = FakeSampler(experiment), Marked()
    arrivals = list(_stream(experiment, [sampler], cast(GroupReducer, reducer), torch.device("cpu"), 3))
    # Of four chunks the last rank has two; the last chunk is a single episode.
    assert sampler.asked == [range(21 + 4, 21 + 7), range(28 + 4, 28 + 7)]
    assert [arrival.batch.index.tolist() for arrival in arrivals] == [list(share) for share in sampler.asked]
    assert reducer.marks == ["waiting for episodes", "computing"] * 2 + ["waiting for episodes"]
    by_row = _stream(experiment, [sampler], cast(GroupReducer, reducer), torch.device("cpu"), 3, rows=True)
    assert all(are_rows(arrival.batch.stacks[0].task.support.x) for arrival in by_row)


class FakeCoordinator:
    """Notes who arrives and what they say."""

    def __init__(self) -> None:
        self.arrived: list[tuple[int, Any]] = []
        self.heartbeats: list[tuple[int, int, str, int]] = []
        self.arrive = Method(self._arrive)
        self.heartbeat = Method(lambda *said: self.heartbeats.append(said))

    def _arrive(self, rank: int, actor: Any) -> int:
        self.arrived.append((rank, actor))
        return 70 + len(self.arrived)


def test_an_exception_is_reported_with_the_users_lines() -> None:
    try:
        dict[str, int]()["b"]
    except KeyError as error:
        failure = worker._failure(1, error)
    assert failure.text.startswith("worker 1: KeyError: 'b' (") and 'dict[str, int]()["b"]' in failure.told
    assert failure.traceback.startswith("worker 1:\nTraceback")


def test_of_a_sampler_that_fails_its_own_lines_are_reported() -> None:
    raised = RayTaskError("sample", "remote traceback", SamplingFailed("sampling: KeyError", "own.py:3: in f", "whole"))
    failure = worker._failure(0, raised.as_instanceof_cause())
    assert failure[2:] == ("worker 0: sampling: KeyError", "own.py:3: in f", "sampler:\nwhole")


class Context:
    """Ray's, within an actor."""

    current_actor = "me"


def test_the_heartbeat_tells_what_the_rank_does(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once(monkeypatch)
    monkeypatch.setattr("ray.get_runtime_context", Context)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)

    class Enough(BaseException):
        """Ends the thread."""

    class Thread:
        def __init__(self, *, target: Callable[..., None], args: tuple[Any, ...], name: str, daemon: bool) -> None:
            self.start = lambda: None
            started.append(lambda: target(*args))
            assert daemon, "a process must be able to end"

    started: list[Callable[[], None]] = []
    monkeypatch.setattr("metaray.distributed.worker.threading.Thread", Thread)
    coordinator = FakeCoordinator()
    heartbeat = HeartbeatReducer(coordinator)
    assert coordinator.arrived == [(1, "me")] and (heartbeat.rank, heartbeat.world_size, heartbeat.token) == (1, 2, 71)

    doings = iter(["computing", "reducing", None])

    def sleep(seconds: float) -> None:
        assert seconds == worker.HEARTBEAT_EVERY_S
        doing = next(doings)
        if doing is None:
            raise Enough
        heartbeat.mark(doing)

    monkeypatch.setattr("metaray.distributed.worker.time.sleep", sleep)
    with pytest.raises(Enough):
        started[0]()
    assert coordinator.heartbeats == [(1, 71, "starting", 0), (1, 71, "computing", 1), (1, 71, "reducing", 2)]
