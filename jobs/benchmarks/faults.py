"""Making things fail on purpose: kills samplers, workers, nodes and drivers, and measures how a run gets over it."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from metaray.records.events import Event, Listener

Victim = Literal["sampler", "worker"]
TITLES: dict[Victim, str] = {"sampler": "ray::Sampler", "worker": "ray::RayTrainWorker"}
AT_STEP = 25


def processes(victim: Victim, below: int | None = None) -> list[psutil.Process]:
    """The Ray processes of one kind that descend from a process.

    Args:
        victim: which kind.
        below: process id of the driver that started Ray; None means this one.
    """
    found = []
    for process in psutil.Process(below or os.getpid()).children(recursive=True):
        try:
            if " ".join(process.cmdline()).startswith(TITLES[victim]):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return sorted(found, key=lambda process: process.pid)


def kill(victim: Victim, below: int | None = None, *, which: int = 0, number: int = signal.SIGKILL) -> bool:
    """Send a signal to one process; returns whether there was one."""
    found = processes(victim, below)
    if not found:
        return False
    found[which % len(found)].send_signal(number)
    return True


class Pace(Listener):
    """Sent to rank 0: slows the run while a file exists, so that a fault happens well inside it. Changes no bit.

    Args:
        flag: the file.
        sleep_s: after each step.
    """

    def __init__(self, flag: str, sleep_s: float) -> None:
        self._flag, self._sleep_s = flag, sleep_s

    def on_event(self, event: Event) -> None:
        """Sleep after a step."""
        if event.kind == "step" and Path(self._flag).exists():
            time.sleep(self._sleep_s)

    def close(self) -> None:
        """Nothing to deliver."""


Until = Callable[[], bool]


@dataclass
class Recovery:
    """How a run got over something, in seconds since the epoch; 0 for what has not happened.

    Attributes:
        what: happened to it.
        acted_s: when.
        began_s: when a new group of workers began.
        back_s: when that group had done its first step.
    """

    what: str
    acted_s: float
    began_s: float = 0.0
    back_s: float = 0.0


class Disturbed(Listener):
    """The driver's display of a run that something happens to, as a script says, and the times it took.

    Args:
        script: yields conditions; once one holds, it goes on. None leaves the run alone.
        flag: removed at the script's end (see `Pace`).

    Attributes:
        step: steps done so far.
        recoveries: one for each thing that the script did.
        notes: all that the run said.
    """

    def __init__(
        self, script: "Callable[[Disturbed], Iterator[Until]] | None" = None, flag: Path | None = None
    ) -> None:
        self.step = 0
        self.recoveries: list[Recovery] = []
        self.notes: list[str] = []
        self._flag = flag
        self._script = script(self) if script else iter(())
        self._until = next(self._script, None)

    def acts(self, what: str) -> None:
        """The script is about to do something."""
        self.recoveries.append(Recovery(what, time.time()))

    def is_back(self) -> bool:
        """Whether the run has done a step with a new group of workers since the script acted."""
        return self.recoveries[-1].back_s > 0

    def on_event(self, event: Event) -> None:
        """Take the time, and go on with the script if its condition holds."""
        last = self.recoveries[-1] if self.recoveries else None
        if event.kind == "note":
            self.notes.append(event.text)
            if last and ("starting again" in event.text or "more room" in event.text):
                last.began_s = event.time_s
        elif event.kind == "step":
            self.step = event.step
            if last and last.began_s and not last.back_s and event.time_s > last.began_s:
                last.back_s = event.time_s
        if self._until is not None and self._until():
            self._until = next(self._script, None)
            if self._until is None and self._flag is not None:
                self._flag.unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing to deliver."""

    @property
    def finished(self) -> bool:
        """Whether the whole script was played."""
        return self._until is None


def sampler_killed(run: Disturbed) -> Iterator[Until]:
    """SIGKILL of a sampler actor; Ray restarts it and repeats the lost calls."""
    yield lambda: run.step >= AT_STEP
    run.acts("sampler killed")
    assert kill("sampler")
    yield lambda: run.step >= 2 * AT_STEP


def worker_killed(run: Disturbed) -> Iterator[Until]:
    """SIGKILL of a train worker, the last rank's."""
    yield lambda: run.step >= AT_STEP
    run.acts("worker killed")
    assert kill("worker", which=-1)
    yield run.is_back


def worker_frozen(run: Disturbed) -> Iterator[Until]:
    """SIGSTOP of a train worker: it hangs until the driver kills it."""
    yield lambda: run.step >= AT_STEP
    run.acts("worker frozen")
    assert kill("worker", which=-1, number=signal.SIGSTOP)
    yield run.is_back


def node_lost(cluster: Any, node: Any, cpus: int) -> Callable[[Disturbed], Iterator[Until]]:
    """A node goes, and another comes three seconds later."""

    def script(run: Disturbed) -> Iterator[Until]:
        yield lambda: run.step >= AT_STEP
        run.acts("node lost, another comes after 3 s")
        cluster.remove_node(node, allow_graceful=False)
        time.sleep(3.0)
        cluster.add_node(num_cpus=cpus)
        yield run.is_back

    return script


def shrunk_and_grown(cluster: Any, node: Any, cpus: int) -> Callable[[Disturbed], Iterator[Until]]:
    """A node goes; the run goes on with fewer workers; a node comes; the run grows back."""

    def script(run: Disturbed) -> Iterator[Until]:
        yield lambda: run.step >= AT_STEP
        run.acts("node lost, on with fewer workers")
        cluster.remove_node(node, allow_graceful=False)
        yield run.is_back
        run.acts("node added, back to all workers")
        cluster.add_node(num_cpus=cpus)
        yield run.is_back

    return script
