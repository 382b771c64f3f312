"""What each Ray Train worker runs."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import ray
import torch
from torch import distributed

from metaray import tracebacks
from metaray.distributed.coordinator import CoordinatorListener
from metaray.distributed.samplers import SamplingFailed, actor_stream, enter, require_same_data
from metaray.episodes.prefetch import Arrival
from metaray.episodes.resident import bring_home
from metaray.episodes.sampler import share_of
from metaray.errors import RunFailed, RunStopped
from metaray.experiment.experiment import Experiment
from metaray.records.events import ENDINGS, Event, Fanout
from metaray.records.storage import Storage
from metaray.training.device import choose_device, set_execution
from metaray.training.outer_loop import chunk_size_of
from metaray.training.place import Extent
from metaray.training.recovery import WAITING, Failure
from metaray.training.reduction import GroupReducer, LostRank
from metaray.training.session import RankSetup, Session

HEARTBEAT_EVERY_S = 1.0


class HeartbeatReducer(GroupReducer):
    """The ranks' reducer, which tells the coordinator once a second what its rank does and whether it gets ahead."""

    def __init__(self, coordinator: Any) -> None:
        super().__init__()
        self._doing, self._marks = "starting", 0
        me = ray.get_runtime_context().current_actor
        self.token: int = ray.get(coordinator.arrive.remote(self.rank, me))
        threading.Thread(target=self._beat, args=(coordinator,), name="heartbeat", daemon=True).start()

    def mark(self, doing: str) -> None:
        """Note a sign of life."""
        self._doing, self._marks = doing, self._marks + 1

    def _beat(self, coordinator: Any) -> None:
        while True:
            coordinator.heartbeat.remote(self.rank, self.token, self._doing, self._marks)
            time.sleep(HEARTBEAT_EVERY_S)


def train_worker(config: dict[str, Any]) -> None:
    """One rank. `config` comes from `trainer.OnRay`.

    A run that fails or stops by its own decision does so on all ranks at the same step. That is no fault of a worker
    to be retried, so the coordinator is told, and the worker returns. Any other exception ends this worker; Ray Train
    starts all of them again, and they go on from the newest checkpoint.
    """
    coordinator = config["coordinator"]
    reducer = HeartbeatReducer(coordinator)
    if not _may_begin(coordinator, reducer):
        return
    try:
        _train(config, reducer)
    except LostRank:
        raise  # the other rank knows why
    except BaseException as error:
        ray.get(coordinator.report.remote(_failure(reducer.rank, error)))
        raise


def _failure(rank: int, error: BaseException) -> Failure:
    """What an exception says to whoever reads of it elsewhere."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, SamplingFailed):  # it came up in a sampler's process, where its traceback was written down
        return Failure("exception", 0, f"worker {rank}: {cause}", cause.told, f"sampler:\n{cause.traceback}")
    traceback = f"worker {rank}:\n{tracebacks.whole(error)}"
    return Failure("exception", 0, f"worker {rank}: {tracebacks.summary(error)}", tracebacks.told(error), traceback)


def _may_begin(coordinator: Any, reducer: HeartbeatReducer) -> bool:
    """Rank 0 asks the coordinator, which counts failures, whether another attempt makes sense; all ranks hear it."""
    may = [ray.get(coordinator.begin.remote(reducer.world_size)) if reducer.rank == 0 else None]
    distributed.broadcast_object_list(may, src=0)
    return bool(may[0])


def _train(config: dict[str, Any], reducer: HeartbeatReducer) -> None:
    enter(config["folder"])
    experiment = Experiment.from_json(config["experiment"])
    require_same_data(experiment.source, config["fingerprint"], verify=config["verify"])
    device = _gpu() if config["use_gpu"] else choose_device("cpu")
    set_execution(experiment, device)
    home = bring_home(experiment.source, device, config["data_on"])
    coordinator = CoordinatorListener(config["coordinator"], reducer.token)
    rank = RankSetup(
        storage=Storage(config["storage"]),
        reducer=reducer,
        device=device,
        listener=Fanout([coordinator, *config["listeners"]]),
        stream=lambda start: _stream(experiment, config["samplers"], reducer, device, start, rows=home.on_device),
        extent=Extent(config["until"], config["judge"], coordinator.should_stop, config["profile"]),
        notes=(home.note,) if home.note else (),
        data_on=home.place,
    )
    try:
        Session(experiment, rank).run()
    except (RunFailed, RunStopped) as error:
        if rank.is_chief:
            kind = next(kind for kind, raised in ENDINGS.items() if raised is type(error))
            rank.listener.on_event(Event(kind, 0, {}, time.time(), str(error)))
    finally:
        if rank.is_chief:
            rank.listener.close()
    # Nobody leaves before rank 0 has written everything.
    reducer.sum_(torch.zeros(1, device=device))


def _gpu() -> torch.device:
    """The GPU that Ray Train has given this worker, as the current one."""
    from ray.train.torch import get_device

    device = get_device()
    torch.cuda.set_device(device)
    return torch.device(device)


def _stream(
    experiment: Experiment,
    samplers: list[Any],
    reducer: GroupReducer,
    device: torch.device,
    start: int,
    *,
    rows: bool = False,
) -> Iterator[Arrival]:
    """This rank's episodes from step `start` on."""
    size, chunk_size = experiment.meta_batch_size, chunk_size_of(experiment, device)

    def share(step: int) -> range:
        return share_of(step, size, reducer.rank, reducer.world_size, chunk_size=chunk_size)

    stream = actor_stream(samplers, share, start=start, stop=experiment.num_steps, rows=rows)
    while True:
        reducer.mark(WAITING)
        arrival = next(stream, None)
        if arrival is None:
            return
        reducer.mark("computing")
        yield arrival
