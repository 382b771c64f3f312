"""Runs whose disk is full, for a while or for good: what they lose, what they say, and that no bit changes."""

import errno
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from metaray.errors import RunFailed, RunStopped
from metaray.experiment.experiment import Checkpoint, Experiment
from metaray.records.checkpoint import load_checkpoint
from metaray.records.checkpoint_files import saved_steps
from metaray.records.events import Event
from metaray.records.journal import read_journal
from metaray.records.result import RESULT
from metaray.records.storage import Storage
from metaray.training import run_writer as writer
from metaray.training.outer_loop import initial_state
from metaray.training.recovery import WAITS
from tests.training.whole_runs import AtStep, Memory, StopAfter, comparable, damage, train, train_in_process, undated

MakeExperiment = Callable[..., Experiment]


class Disk:
    """A disk that is full, or not."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        write = Storage.write

        def guarded(storage: Storage, name: str, data: bytes) -> None:
            if self.is_full:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(storage, name, data)

        patch.setattr(Storage, "write", guarded)
        patch.setattr(writer, "WAIT_S", 0.0)

    def fill(self) -> None:
        self.is_full = True

    def clear(self) -> None:
        self.is_full = False


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "run"))


def test_training_goes_on_while_the_disk_is_full(storage: Storage, make_experiment: MakeExperiment, disk: Disk) -> None:
    experiment = make_experiment(checkpoint=Checkpoint(every=1))
    undisturbed = Storage(f"{storage.root}-undisturbed")
    expected, _ = train(experiment, undisturbed)
    memory = AtStep(step_2=disk.fill, step_4=disk.clear)
    found = train_in_process(experiment, storage, memory, device="cpu")
    assert comparable(found) == comparable(expected) and undated(storage) == undated(undisturbed)
    assert [event.step for event in memory.of("checkpoint")] == [1, 4, 5, 6]
    assert "the checkpoint of step 3 could not be written: [Errno 28] No space left on device" in memory.notes()
    told = {(key, event.step): value for event in memory.of("metrics") for key, value in event.values.items()}
    assert told == {(m.key, m.step): m.value for m in read_journal(storage)}


@pytest.mark.parametrize(
    ("acts", "what", "left"),
    [
        ({"step_6": "fill"}, "the checkpoint of step 6", 5),
        ({"step_5": "fill"}, "the checkpoint of step 6", 4),
    ],
)
def test_a_disk_that_stays_full_ends_the_run_and_costs_no_bits(
    acts: dict[str, str], what: str, left: int, storage: Storage, make_experiment: MakeExperiment, disk: Disk
) -> None:
    experiment = make_experiment(checkpoint=Checkpoint(every=1))
    undisturbed = Storage(f"{storage.root}-undisturbed")
    expected, _ = train(experiment, undisturbed)
    memory = AtStep(**{step: getattr(disk, act) for step, act in acts.items()})
    with pytest.raises(
        RunFailed, match=f"{what} could not be written: .*The newest checkpoint is that of step {left}$"
    ):
        train_in_process(experiment, storage, memory, device="cpu")
    assert memory.notes().count("Trying again in 0 s") == WAITS and memory.closed == 1
    disk.clear()
    found, again = train(experiment, storage)
    assert [event.step for event in again.of("step")] == list(range(left + 1, 7))
    assert comparable(found) == comparable(expected) and undated(storage) == undated(undisturbed)


def test_a_result_that_cannot_be_written(storage: Storage, make_experiment: MakeExperiment, disk: Disk) -> None:
    class FillAtTheEnd(Memory):
        def on_event(self, event: Event) -> None:
            super().on_event(event)
            disk.is_full = event.text == "meta-test" or disk.is_full

    expected, _ = train(make_experiment(), Storage(f"{storage.root}-undisturbed"))
    with pytest.raises(RunFailed, match="^the result could not be written: .*The newest checkpoint is that of step 6$"):
        train_in_process(make_experiment(), storage, FillAtTheEnd(), device="cpu")
    assert not storage.exists(RESULT)
    disk.clear()
    found, again = train(make_experiment(), storage)
    assert again.of("step") == [] and comparable(found) == comparable(expected)


def test_a_stop_on_a_full_disk_is_no_stop(storage: Storage, make_experiment: MakeExperiment, disk: Disk) -> None:
    """A run says that it is stopped only if it can go on."""
    with pytest.raises(RunFailed, match="the checkpoint of step 3 could not be written"):
        train_in_process(make_experiment(), storage, AtStep(step_3=disk.fill), device="cpu", should_stop=StopAfter(3))


def test_the_only_good_checkpoint_stays_whatever_happens(
    storage: Storage, make_experiment: MakeExperiment, disk: Disk
) -> None:
    """The newest is damaged, and no other can be written."""
    experiment = make_experiment(checkpoint=Checkpoint(every=1))
    expected, _ = train(experiment, Storage(f"{storage.root}-undisturbed"))
    with pytest.raises(RunStopped):
        train(experiment, storage, should_stop=StopAfter(4))
    for step in saved_steps(storage):
        if step != 3:
            damage(storage, step)
    for _ in range(2):
        disk.clear()
        with pytest.raises(RunFailed, match="could not be written"):
            train_in_process(experiment, storage, AtStep(step_4=disk.fill), device="cpu")
        assert load_checkpoint(storage, initial_state(experiment, torch.device("cpu"))).progress.step == 3
    disk.clear()
    found, memory = train(experiment, storage)
    assert [event.step for event in memory.of("step")] == [4, 5, 6] and comparable(found) == comparable(expected)


REALLY_FULL = """
import json, resource, sys
from pathlib import Path

from metaray.errors import RunFailed
from metaray.training import run_writer as writer
from metaray.records.events import Listener
from metaray.experiment.experiment import Experiment
from tests.training.whole_runs import train_in_process
from metaray.records.storage import Storage

how, folder, experiment = sys.argv[1], Path(sys.argv[2]), Experiment.from_json(Path(sys.argv[3]).read_text())
writer.WAIT_S = 0.0

def fill():
    if how == "limit":
        return resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
    size = 1 << 16
    with (folder / "filler").open("ab", buffering=0) as file:
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2

def clear():
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    (folder / "filler").unlink(missing_ok=True)

class AtStep(Listener):
    def __init__(self, acts):
        self.acts, self.notes = acts, []

    def on_event(self, event):
        if event.kind == "step" and event.step in self.acts:
            self.acts[event.step]()
        if event.kind == "note":
            self.notes.append(event.text)

    def close(self):
        pass

found = {}
for name, acts in {"passing": {2: fill, 4: clear}, "lasting": {5: fill}, "again": {}}.items():
    listener = AtStep(acts)
    storage = Storage(str(folder / name.replace("again", "lasting")))
    try:
        found[name] = train_in_process(experiment, storage, listener, device="cpu").parameters_sha256
    except RunFailed as error:
        found[name] = str(error)
    clear()
    found[name + " notes"] = listener.notes
print(json.dumps(found))
"""
MOUNT = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=2m none "$0" && exec "$@"']


@pytest.mark.parametrize("how", ["limit", "tmpfs"])
def test_a_disk_that_is_really_full(how: str, make_experiment: MakeExperiment, tmp_path: Path) -> None:
    prefix = [] if how == "limit" else [*MOUNT, str(tmp_path)]
    if prefix:
        tried = shutil.which("unshare") and subprocess.run([*prefix, "true"], capture_output=True).returncode
        if tried != 0:
            pytest.skip("this machine lets nobody mount a small disk")
    experiment = make_experiment(checkpoint=Checkpoint(every=1))
    expected, _ = train(experiment, Storage(str(tmp_path / "undisturbed")))
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "experiment.json"
        file.write_text(experiment.to_json())
        done = subprocess.run(
            [*prefix, sys.executable, "-c", REALLY_FULL, how, str(tmp_path), str(file)], capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    problem = "File too large" if how == "limit" else "No space left on device"
    assert found["passing"] == found["again"] == expected.parameters_sha256
    assert any("step 2 could not be written" in note and problem in note for note in found["passing notes"])
    assert problem in found["lasting"] and found["lasting"].endswith("The newest checkpoint is that of step 4")
    assert not any("damaged" in note for note in found["again notes"])
