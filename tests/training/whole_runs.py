"""What tests of whole runs in process share: listeners that remember or act, and results without what was timed."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from metaray.experiment.experiment import Experiment
from metaray.records.checkpoint_files import CHECKPOINTS_FOLDER, checkpoint_name
from metaray.records.events import Event, Listener
from metaray.records.journal import read_journal
from metaray.records.result import Result, read_result
from metaray.records.storage import Storage
from metaray.training.in_process import InProcess
from metaray.training.place import Extent


class Memory(Listener):
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.closed = 0

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.closed += 1

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]

    def notes(self) -> str:
        return "\n".join(event.text for event in self.of("note"))


class AtStep(Memory):
    """Does something after a step, before its checkpoint."""

    def __init__(self, **acts: Callable[[], object]) -> None:
        super().__init__()
        self.acts = {int(name.removeprefix("step_")): act for name, act in acts.items()}

    def on_event(self, event: Event) -> None:
        super().on_event(event)
        if event.kind == "step" and event.step in self.acts:
            self.acts[event.step]()


class StopAfter:
    """Says stop at the n-th time it is asked."""

    def __init__(self, asked: int) -> None:
        self.left = asked

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def train_in_process(
    experiment: Experiment,
    storage: Storage,
    listener: Listener,
    *,
    device: str = "cpu",
    should_stop: Callable[[], bool] = lambda: False,
) -> Result:
    InProcess(device).train(experiment, storage, listener, Extent(should_stop=should_stop))
    return read_result(storage)


def train_part_in_process(
    experiment: Experiment, storage: Storage, listener: Listener, *, device: str = "cpu", until: int | None = None
) -> None:
    InProcess(device).train(experiment, storage, listener, Extent(until, judge=False))


def train(experiment: Experiment, storage: Storage, **options: Callable[[], bool]) -> tuple[Result, Memory]:
    memory = Memory()
    return train_in_process(experiment, storage, memory, device="cpu", **options), memory


def path(storage: Storage, step: int, name: str = "") -> Path:
    return Path(storage.root) / CHECKPOINTS_FOLDER / checkpoint_name(step) / name


def damage(storage: Storage, step: int) -> None:
    file = path(storage, step, "state.safetensors")
    file.write_bytes(file.read_bytes()[:-1])


def comparable(result: Result) -> Result:
    return dataclasses.replace(result, seconds=0.0, wait_share=0.0, episodes_per_s=0.0)


def undated(storage: Storage) -> list[tuple[str, float, int]]:
    """The journal without times, and without what was timed."""
    return [
        (m.key, m.value, m.step)
        for m in read_journal(storage)
        if "wait" not in m.key and not m.key.startswith("speed/")
    ]
