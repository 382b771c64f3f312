"""What rank 0 keeps, on a storage that works and on one that does not."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from metaray.errors import RunFailed
from metaray.experiment.experiment import Experiment
from metaray.records.checkpoint import copies, load_checkpoint
from metaray.records.checkpoint_files import CHECKPOINTS_FOLDER, Progress, checkpoint_name, saved_steps
from metaray.records.events import Event, Listener
from metaray.records.journal import Journal, Metric, read_journal
from metaray.records.storage import Storage
from metaray.records.train_state import TrainState
from metaray.training import recovery
from metaray.training.outer_loop import initial_state
from metaray.training.recovery import WAITS
from metaray.training.run_writer import RunWriter

MakeExperiment = Callable[..., Experiment]


class Memory(Listener):
    """Notes what was on disk when it heard of something."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        if event.kind == "metrics":
            known = {(m.key, m.step): m.value for m in read_journal(self.storage)}
            assert all(known[key, event.step] == value for key, value in event.values.items()), "told before written"
        if event.kind == "checkpoint":
            assert event.step in saved_steps(self.storage)

    def close(self) -> None:
        """Nobody closes it."""

    def texts(self) -> list[str]:
        return [event.text for event in self.events if event.kind == "note"]

    def steps(self, kind: str) -> list[int]:
        return [event.step for event in self.events if event.kind == kind]


class Disk:
    """Full while `full` is set; counts the writes that failed."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.full: bool | Callable[[str], bool] = False
        self.refused = 0
        write = Storage.write

        def guarded(storage: Storage, name: str, data: bytes) -> None:
            if self.full(name) if callable(self.full) else self.full:
                self.refused += 1
                raise OSError(errno.ENOSPC, "No space left on device")
            write(storage, name, data)

        patch.setattr(Storage, "write", guarded)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "run"))


@pytest.fixture
def memory(storage: Storage) -> Memory:
    return Memory(storage)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was slept, without doing so."""
    slept: list[float] = []
    monkeypatch.setattr(RunWriter, "_wait", lambda self: slept.append(recovery.WAIT_S))
    return slept


@pytest.fixture
def state(make_experiment: MakeExperiment) -> TrainState:
    return initial_state(make_experiment(), torch.device("cpu"))


def save(writer: RunWriter, state: TrainState, step: int, *, best: int | None = None, needed: bool = False) -> None:
    state.step = step
    writer.save(state, Progress(best_step=best), copies(state.meta), needed=needed)


def test_metrics_are_told_once_they_are_on_disk(storage: Storage, memory: Memory) -> None:
    writer = RunWriter(storage, memory, {})
    writer.record({"train/loss": 0.5, "train/accuracy": 0.25}, 3)
    found = {key: value for event in memory.events for key, value in event.values.items()}
    assert found == {"train/loss": 0.5, "train/accuracy": 0.25} and memory.steps("metrics") == [3, 3]


def test_a_tracker_that_starts_anew_hears_all_of_it(storage: Storage, memory: Memory) -> None:
    journal = Journal(storage)
    journal.append([Metric("train/loss", 0.5, step, 1_700_000_000_000 + step) for step in (1, 2, 3)])
    journal.flush(now=True)
    RunWriter(storage, memory, {})
    assert [(e.kind, e.step, e.values, e.time_s) for e in memory.events] == [
        ("metrics", step, {"train/loss": 0.5}, 1_700_000_000 + step / 1000) for step in (1, 2, 3)
    ]


def test_metrics_wait_for_a_full_disk(storage: Storage, memory: Memory, disk: Disk, state: TrainState) -> None:
    writer = RunWriter(storage, memory, {})
    disk.full = True
    writer.record({"train/loss": 0.5}, 1)
    writer.record({"train/loss": 0.25}, 2)
    assert memory.steps("metrics") == [] and disk.refused == 1
    assert memory.texts() == [
        "metrics could not be written: [Errno 28] No space left on device. They wait for the next time"
    ]
    disk.full = False
    save(writer, state, 2)
    assert memory.steps("metrics") == [1, 2] and [m.value for m in read_journal(storage)] == [0.5, 0.25]


def test_metrics_are_written_with_a_checkpoint(storage: Storage, memory: Memory, state: TrainState) -> None:
    writer = RunWriter(storage, memory, {})
    for step in (1, 2):
        writer.record({"train/loss": 0.5}, step)
    save(writer, state, 2)
    assert [event.kind for event in memory.events] == ["metrics", "metrics", "checkpoint"]
    assert [m.step for m in read_journal(storage)] == [1, 2]


def test_what_a_kill_left_behind_is_removed_and_named(storage: Storage, memory: Memory) -> None:
    storage.write(f"{CHECKPOINTS_FOLDER}/{checkpoint_name(4)}/state.safetensors", b"half")
    RunWriter(storage, memory, {})
    assert memory.texts() == ["removed what broken-off writes had left behind: checkpoints/step-000000004"]
    assert storage.names(CHECKPOINTS_FOLDER) == []


def test_a_checkpoint_that_fails_is_left_to_the_next(
    storage: Storage, memory: Memory, disk: Disk, state: TrainState, sleeps: list[float]
) -> None:
    writer = RunWriter(storage, memory, {})
    save(writer, state, 1)
    disk.full = True
    for step in range(2, 40):
        save(writer, state, step)
    disk.full = False
    save(writer, state, 40)
    assert memory.steps("checkpoint") == [1, 40] and saved_steps(storage) == [1, 40] and sleeps == []
    assert len(memory.texts()) == 38 and memory.texts()[0] == (
        "the checkpoint of step 2 could not be written: [Errno 28] No space left on device. "
        "Training goes on; the next checkpoint will try again"
    )


@pytest.mark.parametrize("breaks", ["state.safetensors", "progress.json", "manifest.json"])
def test_half_a_checkpoint_is_none(
    breaks: str, storage: Storage, memory: Memory, disk: Disk, state: TrainState
) -> None:
    writer = RunWriter(storage, memory, {})
    save(writer, state, 1)
    disk.full = lambda name: name.endswith(breaks)
    save(writer, state, 2)
    assert saved_steps(storage) == [1] and load_checkpoint(storage, state).progress.step == 1
    disk.full = False
    save(writer, state, 3)
    # What was left of the second is gone, the first is kept.
    assert storage.names(CHECKPOINTS_FOLDER) == [checkpoint_name(1), checkpoint_name(3)]


def test_the_last_checkpoint_waits_for_room(
    storage: Storage, memory: Memory, disk: Disk, state: TrainState, sleeps: list[float]
) -> None:
    writer = RunWriter(storage, memory, {})
    disk.full = lambda name: disk.refused < WAITS
    save(writer, state, 6, needed=True)
    assert memory.steps("checkpoint") == saved_steps(storage) == [6] and sleeps == [recovery.WAIT_S] * WAITS
    assert (
        memory.texts()
        == ["the checkpoint of step 6 could not be written: [Errno 28] No space left on device. Trying again in 10 s"]
        * WAITS
    )


@pytest.mark.parametrize(
    ("earlier", "left"), [([], "There is no checkpoint"), ([3, 5], "The newest checkpoint is that of step 5")]
)
def test_the_last_checkpoint_does_not_wait_for_ever(
    earlier: list[int],
    left: str,
    storage: Storage,
    memory: Memory,
    disk: Disk,
    state: TrainState,
    sleeps: list[float],
) -> None:
    writer = RunWriter(storage, memory, {})
    for step in earlier:
        save(writer, state, step)
    disk.full = True
    with pytest.raises(RunFailed, match=f"^the checkpoint of step 6 could not be written: .*on device. {left}$"):
        save(writer, state, 6, needed=True)
    assert len(sleeps) == WAITS and saved_steps(storage) == earlier
    with pytest.raises(RunFailed, match=f"the result could not be written: .* {left}$"):
        writer.finish({}, {"result.json": b"{}"}, 6)


def test_checkpoints_that_were_skipped_do_not_shorten_the_wait(
    storage: Storage, memory: Memory, disk: Disk, state: TrainState, sleeps: list[float]
) -> None:
    writer = RunWriter(storage, memory, {})
    disk.full = lambda name: disk.refused < WAITS + 3
    for step in (1, 2, 3):
        save(writer, state, step)
    save(writer, state, 3, needed=True)
    assert len(sleeps) == WAITS and saved_steps(storage) == [3]


def test_the_result_is_written_last(storage: Storage, memory: Memory, disk: Disk, sleeps: list[float]) -> None:
    names: list[str] = []

    def note(name: str) -> bool:
        names.append(name)
        return name == "learner/b" and names.count(name) == 1

    disk.full = note
    writer = RunWriter(storage, memory, {})
    writer.finish({"learner": {"a": b"1", "b": b"2"}}, {"result.json": b"{}"}, 6)
    # Once it could not be finished, so it was all written again.
    assert names == ["learner/a", "learner/b", "learner/a", "learner/b", "result.json"] and len(sleeps) == 1
    assert storage.read("learner/b") == b"2" and storage.read("result.json") == b"{}"


def test_the_newest_the_one_before_and_the_best_are_kept(storage: Storage, memory: Memory, state: TrainState) -> None:
    writer, kept = RunWriter(storage, memory, {}), []
    for step in range(1, 7):
        save(writer, state, step, best=min(step, 2))
        kept.append(saved_steps(storage))
    assert kept == [[1], [1, 2], [2, 3], [2, 3, 4], [2, 4, 5], [2, 5, 6]]


def test_a_damaged_one_is_not_the_one_before(storage: Storage, memory: Memory, state: TrainState) -> None:
    """Else the only whole one would go, to make room for one that may be damaged too."""
    for step in (3, 5):
        save(RunWriter(storage, memory, {}), state, step)
    (Path(storage.root) / CHECKPOINTS_FOLDER / checkpoint_name(5) / "state.safetensors").unlink()
    loaded = load_checkpoint(storage, state)
    writer = RunWriter(storage, memory, loaded.damaged)
    save(writer, state, 6)
    assert saved_steps(storage) == [3, 6]
    save(writer, state, 7)
    assert saved_steps(storage) == [6, 7]


def test_a_damaged_one_that_was_written_anew_is_whole(storage: Storage, memory: Memory, state: TrainState) -> None:
    writer = RunWriter(storage, memory, {5: "state.safetensors is missing"})
    for step in (5, 6):
        save(writer, state, step)
    assert saved_steps(storage) == [5, 6]


def test_no_old_checkpoint_goes_before_the_new_one_is_whole(
    storage: Storage, memory: Memory, disk: Disk, state: TrainState, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RunWriter(storage, memory, {})
    for step in (1, 2):
        save(writer, state, step)
    delete = Storage.delete_folder

    def guarded(self: Storage, folder: str) -> None:
        assert saved_steps(self)[-1] == 3 and load_checkpoint(self, state).progress.step == 3
        delete(self, folder)

    monkeypatch.setattr(Storage, "delete_folder", guarded)
    save(writer, state, 3)
    disk.full = True
    save(writer, state, 4)
    assert saved_steps(storage) == [2, 3]


def test_what_cannot_be_deleted_does_not_end_the_run(
    storage: Storage, memory: Memory, state: TrainState, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RunWriter(storage, memory, {})
    for step in (1, 2):
        save(writer, state, step)

    def busy(self: Storage, folder: str) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "delete_folder", busy)
        save(writer, state, 3)
    assert saved_steps(storage) == [1, 2, 3] and memory.steps("checkpoint") == [1, 2, 3]
    save(writer, state, 4)
    assert saved_steps(storage) == [3, 4]


def test_whole_newer_checkpoints_are_left_alone(storage: Storage, memory: Memory, state: TrainState) -> None:
    """They are another process's, which believes this one dead."""
    other = RunWriter(storage, memory, {})
    for step in (8, 9):
        save(other, state, step)
    writer, kept = RunWriter(storage, memory, {}), []
    for step in (5, 6, 7):
        save(writer, state, step, best=5)
        kept.append(saved_steps(storage))
    assert kept == [[5, 8, 9], [5, 6, 8, 9], [5, 6, 7, 8, 9]]


def test_damaged_newer_checkpoints_go(storage: Storage, memory: Memory, state: TrainState) -> None:
    for step in (8, 9):
        save(RunWriter(storage, memory, {}), state, step)
    writer = RunWriter(storage, memory, {9: "state.safetensors is missing"})
    save(writer, state, 6)
    assert saved_steps(storage) == [6, 8]


@pytest.mark.parametrize("breaks", ["state.safetensors", "progress.json", "manifest.json"])
@pytest.mark.parametrize("needed", [False, True])
def test_a_checkpoint_that_fails_takes_no_room(
    breaks: str, needed: bool, storage: Storage, memory: Memory, disk: Disk, state: TrainState, sleeps: list[float]
) -> None:
    writer = RunWriter(storage, memory, {})
    save(writer, state, 1)
    disk.full = lambda name: name.endswith(breaks)
    if needed:
        with pytest.raises(RunFailed, match=r"could not be written: \[Errno 28\] No space left"):
            save(writer, state, 2, needed=True)
    else:
        save(writer, state, 2)
        assert "could not be written: [Errno 28] No space left on device" in memory.texts()[-1]
    assert storage.names(CHECKPOINTS_FOLDER) == [checkpoint_name(1)]


def test_it_says_that_it_is_alive_while_it_writes_and_waits(
    storage: Storage, memory: Memory, disk: Disk, state: TrainState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever watches over this rank would kill it during a minute of waiting."""
    now_s, signs = [1000.0], list[float]()

    def sleep(seconds: float) -> None:
        assert 0 < seconds <= 1, "a beat a second"
        now_s[0] += seconds

    monkeypatch.setattr("metaray.training.run_writer.time.monotonic", lambda: now_s[0])
    monkeypatch.setattr("metaray.training.run_writer.time.sleep", sleep)
    writer = RunWriter(storage, memory, {}, lambda: signs.append(now_s[0]))
    save(writer, state, 1)
    assert signs == [1000.0]
    disk.full = lambda name: disk.refused < 2
    save(writer, state, 2, needed=True)
    assert now_s[0] == 1000.0 + 2 * recovery.WAIT_S and saved_steps(storage) == [1, 2]
    assert max(later - sooner for sooner, later in zip(signs, [*signs[1:], now_s[0]], strict=True)) <= 1.0
