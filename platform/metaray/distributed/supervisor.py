"""The driver's eyes on a run: shows events, passes on the wish to stop, and replaces what hangs."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from ray.util.state import list_actors

from metaray.distributed.cluster import ray_logs
from metaray.distributed.coordinator import CoordinatorView
from metaray.errors import RunFailed, RunStopped
from metaray.records.events import ENDINGS, Event, Listener
from metaray.training.placement import Placement
from metaray.training.recovery import LOSSES, WAITING, Explanation, Failure, hung

POLL_S = 0.2
FRESH_S = 10.0
LEAVE_S = 30.0
TELL_AFTER_S = 45.0
START_WITHIN_S = 120.0
WORKER_CLASS = "RayTrainWorker"


class TrainingThread(Protocol):
    """A Ray Train run in a thread of its own."""

    error: BaseException | None

    def is_alive(self) -> bool:
        """Whether it still goes on."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""


class Supervisor:
    """Watches over a run until it ends.

    Args:
        coordinator: Where the workers report.
        display: Display that hears what happens.
        placement: Placement of the run.
        samplers: Its sampler actors.
    """

    def __init__(self, coordinator: Any, display: Listener, placement: Placement, samplers: Sequence[Any]) -> None:
        self._coordinator, self._display, self._placement, self._samplers = coordinator, display, placement, samplers
        self._ending: Event | None = None
        self._alive_s = time.monotonic()
        self._told = False

    def run(self, start: Callable[[], TrainingThread], should_stop: Callable[[], bool]) -> None:
        """Let Ray Train run, again where it gives up and we do not; raise what ended the run."""
        while True:
            error = self._attend(start(), should_stop)
            if self._ending is not None:
                raise self._ended(ENDINGS[self._ending.kind], self._ending.text)
            if error is None:
                return
            text = f"Ray Train ended with {type(error).__name__}: {error}"
            given_up = ray.get(self._coordinator.fail.remote(Failure("worker lost", 0, text)))
            if given_up:
                raise self._ended(RunFailed, given_up) from error

    def _ended(self, kind: type[RunFailed | RunStopped], text: str) -> RunFailed | RunStopped:
        """What ended the run, with all that the coordinator knows of it."""
        if not issubclass(kind, RunFailed):
            return kind(text)
        known: Explanation = ray.get(self._coordinator.explain.remote())
        logs = f"Ray's own logs: {ray_logs()}" if known.kind in LOSSES else ""  # asked for, they stay
        # Of a process that was killed, or of a machine without memory, Ray knows more than we.
        told = [known.told] if known.told else [logs] if known.kind in LOSSES else []
        tracebacks = [known.tracebacks, logs] if known.kind in LOSSES else []
        return kind(text, told="\n".join(told), tracebacks="\n".join(tracebacks))

    def _attend(self, fit: TrainingThread, should_stop: Callable[[], bool]) -> BaseException | None:
        self._alive_s = time.monotonic()
        while True:
            alive = fit.is_alive()
            asked = should_stop()
            seen: CoordinatorView = ray.get(self._coordinator.look.remote(stop=asked))
            self._show(seen.events)
            if not alive or (self._ending is not None and self._lifeless_s > LEAVE_S):
                return fit.error
            self._note_life(seen)
            self._replace_hung(seen)
            if asked and self._lifeless_s > FRESH_S:
                raise RunStopped("stopped by a signal while no worker was running; the newest checkpoint stands")
            fit.join(POLL_S)

    def _show(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.kind in ENDINGS:
                self._ending = event
                continue
            if event.kind in ("phase", "step"):
                self._ending = None  # whoever said so was replaced before all had heard it
            self._display.on_event(event)

    @property
    def _lifeless_s(self) -> float:
        return time.monotonic() - self._alive_s

    def _note_life(self, seen: CoordinatorView) -> None:
        """Note whether workers live: without a sign of any, first say so, then replace those that do not come up."""
        if any(beat.silent_s < FRESH_S for beat in seen.heartbeats.values()):
            self._alive_s, self._told = time.monotonic(), False
        if self._lifeless_s > TELL_AFTER_S and not self._told:
            self._told = True
            self._note(self._waits_for())
        if self._lifeless_s > max(START_WITHIN_S, self._placement.hang_timeout_s):
            self._alive_s = time.monotonic()
            for process in _worker_processes():
                self._note(f"worker process {process['pid']} does not get ahead with starting; killing it")
                _kill(process)

    def _waits_for(self) -> str:
        """What has to happen before the workers train."""
        placement, starting = self._placement, len(_worker_processes())
        if starting:
            count = "1 worker process is" if starting == 1 else f"{starting} worker processes are"
            return f"{count} starting: each imports torch and joins the others, which takes longer on a busy machine"
        want = f"{placement.workers} workers x {placement.cpus_per_worker:g} CPUs"
        have = f"the cluster has {ray.cluster_resources().get('CPU', 0):g}"
        free = f"{ray.available_resources().get('CPU', 0):g} of them free"
        return f"no worker process is there yet: Ray looks for room for {want} ({have}, {free})"

    def _replace_hung(self, seen: CoordinatorView) -> None:
        blamed = hung(seen.heartbeats, self._placement.hang_timeout_s)
        for rank in blamed:
            ray.get(self._coordinator.forget.remote(rank))
        if blamed and all(seen.heartbeats[rank].doing == WAITING for rank in blamed):
            blamed = [] if self._replace_samplers() else blamed
        for rank in blamed:
            worker, beat = seen.workers.get(rank), seen.heartbeats[rank]
            if worker is None or _is_dead(worker):
                continue
            text = f"worker {rank} hangs: no progress for {beat.for_s:.0f} s (last seen {beat.doing})"
            ray.get(self._coordinator.report.remote(Failure("worker hung", 0, text)))
            ray.kill(worker)

    def _replace_samplers(self) -> bool:
        """Restart sampler actors that do not answer; returns whether there was one."""
        silent = [sampler for sampler in self._samplers if not _answers(sampler)]
        for sampler in silent:
            self._note(f"sampler {list(self._samplers).index(sampler)} hangs: restarting it")
            ray.kill(sampler, no_restart=False)
        return bool(silent)

    def _note(self, text: str) -> None:
        self._display.on_event(Event("note", 0, {}, time.time(), text))


def _answers(actor: Any) -> bool:
    return bool(ray.wait([actor.__ray_ready__.remote()], timeout=2.0)[0])


def _is_dead(worker: Any) -> bool:
    """Whether Ray knows that an actor is gone; one that merely does not answer is not."""
    try:
        ray.get(worker.__ray_ready__.remote(), timeout=1.0)
    except GetTimeoutError:
        return False
    except RayActorError:
        return True
    return False


def _worker_processes() -> list[dict[str, Any]]:
    """Processes of Train workers of this run, those that are still starting among them.

    None where other runs have the same job: the trials of a search, which Ray's list does not tell apart.
    """
    here = ray.get_runtime_context()
    if here.get_actor_id() is not None:
        return []
    job = here.get_job_id()
    found = list_actors(
        address=here.gcs_address,  # by itself it looks for any Ray on this machine, and fails where there are several
        filters=[("class_name", "=", WORKER_CLASS), ("job_id", "=", job)],
        raise_on_missing_output=False,
    )
    return [{"pid": a.pid, "node_id": a.node_id} for a in found if a.pid and a.state != "DEAD"]


def _kill(process: dict[str, Any]) -> None:
    """Kill a process on its node."""
    there = NodeAffinitySchedulingStrategy(process["node_id"], soft=False)
    task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(os.kill)
    ray.wait([task.remote(process["pid"], signal.SIGKILL)], timeout=10.0)
