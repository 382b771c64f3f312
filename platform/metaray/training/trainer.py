"""Training on Ray: sampler actors and Train workers, started and watched from the driver."""

import math
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from metaray.episodes.stream import start_samplers
from metaray.errors import RunFailed
from metaray.training.board import Board, Seen
from metaray.training.cluster import uses_gpu
from metaray.training.events import ENDINGS, Event, Listener
from metaray.training.experiment import Experiment
from metaray.training.placement import Placement
from metaray.training.recovery import Failure, hung
from metaray.training.result import RESULT, Result
from metaray.training.storage import Storage
from metaray.training.worker import train_worker

POLL_S = 0.2
GROW_EVERY_S = 30.0
TELL_AFTER_S = 45.0


def train_on_ray(
    experiment: Experiment,
    storage: Storage,
    placement: Placement,
    *,
    display: Listener,
    listeners: Sequence[Listener] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Run an experiment on the cluster that `connect` joined.

    Args:
        experiment: what to train.
        storage: of the run; every worker must see it.
        placement: workers and samplers.
        display: hears the events in this process.
        listeners: picklable ones, sent to rank 0, which calls them there and waits for them.
        should_stop: polled here; True stops the run after a checkpoint.

    Raises:
        RunFailed: if the run stopped itself, or failures came faster than checkpoints.
        RunStopped: if `should_stop` said so.
    """
    samplers = start_samplers(experiment.source, experiment.episodes, experiment.seed, count=placement.samplers)
    # On the driver's own node, so that it is there as long as the driver is.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(Board).remote()
    config = {
        "experiment": experiment.to_json(),
        "folder": str(Path.cwd()),
        "fingerprint": experiment.source.fingerprint,
        "storage": storage.root,
        "use_gpu": uses_gpu(placement),
        "samplers": samplers,
        "board": board,
        "listeners": list(listeners),
    }
    try:
        _Watch(board, display, placement).run(_FitThread(config, placement), should_stop)
    finally:
        display.close()
        for actor in (*samplers, board):
            ray.kill(actor)
    return Result.from_json(storage.read(RESULT).decode())


class _FitThread(threading.Thread):
    """`TorchTrainer.fit` in a thread, so that the main thread can display and hear signals."""

    def __init__(self, config: dict[str, Any], placement: Placement) -> None:
        super().__init__(name="ray-train", daemon=True)
        self._config, self._placement = config, placement
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            # Ray Train wants a place of its own; nothing of the run is kept there.
            with tempfile.TemporaryDirectory(prefix="metaray-ray-train-", ignore_cleanup_errors=True) as folder:
                self._trainer(folder).fit()
        except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
            self.error = error

    def _trainer(self, folder: str) -> TorchTrainer:
        placement, use_gpu = self._placement, self._config["use_gpu"]
        fewest, most = placement.workers.fewest, placement.workers.most
        return TorchTrainer(
            train_worker,
            train_loop_config=self._config,
            # The watch below finds out who hangs; the collectives of the others have to wait for that.
            torch_config=TorchConfig(timeout_s=int(2 * placement.hang_timeout_s + 60)),
            scaling_config=ScalingConfig(
                num_workers=fewest if fewest == most else (fewest, most),
                use_gpu=use_gpu,
                resources_per_worker={"CPU": placement.cpus_per_worker} | ({"GPU": 1} if use_gpu else {}),
                elastic_resize_monitor_interval_s=GROW_EVERY_S,
            ),
            # Ray Train restarts without limit; the board, which knows of checkpoints, says when that makes no sense.
            run_config=RunConfig(
                name=uuid.uuid4().hex, storage_path=folder, failure_config=FailureConfig(max_failures=-1)
            ),
        )


class _Watch:
    """The driver's eyes: shows events, passes on the wish to stop, and kills workers that hang."""

    def __init__(self, board: Any, display: Listener, placement: Placement) -> None:
        self._board, self._display, self._placement = board, display, placement
        self._ending: Event | None = None
        self._alive_s = time.monotonic()

    def run(self, fit: "_FitThread", should_stop: Callable[[], bool]) -> None:
        """Watch until the run ends; raise what ended it."""
        fit.start()
        asked = False
        while True:
            alive = fit.is_alive()
            seen: Seen = ray.get(self._board.look.remote())
            self._show(seen.events)
            if alive:
                self._replace_hung(seen)
                self._tell_of_waiting(seen)
            if should_stop() and not asked:
                asked = True
                self._board.request_stop.remote()
            if not alive:
                break
            fit.join(POLL_S)
        if self._ending is not None:
            raise ENDINGS[self._ending.kind](self._ending.text)
        if fit.error is not None:
            raise RunFailed(f"Ray Train failed: {fit.error}") from fit.error

    def _show(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.kind in ENDINGS:
                self._ending = event
            else:
                self._display.on_event(event)

    def _replace_hung(self, seen: Seen) -> None:
        for rank in hung(seen.beats, self._placement.hang_timeout_s):
            ray.get(self._board.forget.remote(rank))
            if _is_dead(seen.workers[rank]):
                continue
            beat = seen.beats[rank]
            text = f"worker {rank} hangs: no progress for {beat.for_s:.0f} s (last seen {beat.doing})"
            ray.get(self._board.report.remote(Failure("worker hung", 0, text)))
            ray.kill(seen.workers[rank])

    def _tell_of_waiting(self, seen: Seen) -> None:
        """Say, once each time, that no worker is there because the cluster has no room for them."""
        now = time.monotonic()
        if any(beat.for_s < TELL_AFTER_S for beat in seen.beats.values()):
            self._alive_s = now
        if now - self._alive_s > TELL_AFTER_S:
            self._alive_s = math.inf
            want = f"{self._placement.workers} workers x {self._placement.cpus_per_worker:g} CPUs"
            text = f"no worker answers; Ray looks for room for {want} (the cluster has {_cpus():g})"
            self._display.on_event(Event("note", 0, {}, time.time(), text))


def _cpus() -> float:
    return float(ray.cluster_resources().get("CPU", 0))


def _is_dead(worker: Any) -> bool:
    """Whether Ray knows that an actor is gone; one that merely does not answer is not."""
    try:
        ray.get(worker.__ray_ready__.remote(), timeout=1.0)
    except GetTimeoutError:
        return False
    except RayActorError:
        return True
    return False
