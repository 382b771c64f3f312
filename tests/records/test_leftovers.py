"""What may go of a run, and what stays."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from metaray.experiment.experiment import Evaluation, Experiment
from metaray.manifest import sealed
from metaray.records.checkpoint_files import saved_steps, whole_steps
from metaray.records.events import Fanout
from metaray.records.leftovers import QUIET_S, broken_off_files, deletions_broken_off, leftovers, remove, why_not_now
from metaray.records.overview import Overview, look
from metaray.records.run import Run, held
from metaray.records.storage import Storage
from tests.training.whole_runs import train_in_process


@pytest.fixture(scope="module")
def finished(make_waves: Callable[..., Experiment], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Storage(str(tmp_path_factory.mktemp("runs")))
    experiment = make_waves(num_steps=6, evaluation=Evaluation(every=2, val_episodes=2, test_episodes=2))
    folder = Run.of(root, experiment, "run")
    folder.begin(experiment, tags={}, tracking_run="tracked")
    train_in_process(experiment, folder.storage, Fanout([]))
    return folder.storage.local_folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Storage:
    shutil.copytree(finished, tmp_path / "run")
    return Storage(str(tmp_path / "run"))


def add_checkpoint(run: Storage, step: int) -> None:
    newest = run.local_folder / f"checkpoints/step-{saved_steps(run)[-1]:09d}"
    files = {path.name: path.read_bytes() for path in newest.iterdir() if path.name != "manifest.json"}
    run.write_folder(f"checkpoints/step-{step:09d}", sealed(files))


def best_of(run: Storage) -> int:
    found: int = json.loads(max(run.local_folder.glob("checkpoints/*/progress.json")).read_text())["best_step"]
    return found


def test_a_finished_run_keeps_its_newest_and_its_best_checkpoint(run: Storage) -> None:
    add_checkpoint(run, 1)
    kept = {best_of(run), saved_steps(run)[-1]}
    before = {file.name for file in run.files()}
    found = leftovers(run, look(run, "run"))
    gone = set(saved_steps(run)) - kept
    assert {one.path for one in found} == {f"checkpoints/step-{step:09d}" for step in gone} and 1 in gone
    assert all(one.size_bytes > 1000 for one in found)
    for one in found:
        remove(run, one)
    assert set(saved_steps(run)) == kept
    assert {name for name in before if not name.startswith("checkpoints/")} <= {file.name for file in run.files()}
    assert leftovers(run, look(run, "run")) == []


def test_a_damaged_newest_is_no_reason_to_lose_the_last_whole_one(run: Storage) -> None:
    add_checkpoint(run, 7)
    (run.local_folder / "checkpoints/step-000000007/state.safetensors").write_bytes(b"no")
    whole = whole_steps(run)
    assert 7 in saved_steps(run) and 7 not in whole
    gone = {one.path for one in leftovers(run, look(run, "run"))}
    assert f"checkpoints/step-{whole[-1]:09d}" not in gone and "checkpoints/step-000000007" in gone
    for step in whole:
        (run.local_folder / f"checkpoints/step-{step:09d}/state.safetensors").write_bytes(b"no")
    assert leftovers(run, look(run, "run")) == [], "where none is whole, none goes"


def test_an_unfinished_run_keeps_every_checkpoint(run: Storage) -> None:
    run.delete_file("result.json")
    add_checkpoint(run, 1)
    assert leftovers(run, look(run, "run")) == []


def test_what_broken_off_writes_left(run: Storage) -> None:
    run.delete_file("result.json")
    (run.local_folder / "checkpoints/step-000000099").mkdir()
    (run.local_folder / "checkpoints/step-000000099/.state.0f.tmp").write_bytes(b"1234")
    (run.local_folder / "metrics/.x.0f.tmp").write_bytes(b"12")
    found = leftovers(run, look(run, "run"))
    assert [(one.path, one.size_bytes) for one in found] == [
        ("checkpoints/step-000000099", 4),
        ("metrics/.x.0f.tmp", 2),
    ]
    assert broken_off_files(run, outside=["checkpoints/", "metrics/"]) == []
    for one in found:
        remove(run, one)
    assert leftovers(run, look(run, "run")) == []


def test_a_run_that_was_never_begun_goes_whole(tmp_path: Path) -> None:
    root = Storage(str(tmp_path))
    with held(root.child("refused")):
        pass
    (whole,) = leftovers(root.child("refused"), look(root.child("refused"), "refused"))
    assert whole.path == ""
    remove(root.child("refused"), whole)
    assert root.names() == []


def test_deletions_that_broke_off_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Storage(str(tmp_path))
    root.write("mine/run.json", b"{}")
    monkeypatch.setattr(shutil, "rmtree", lambda path: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        root.child("mine").discard("")
    monkeypatch.undo()
    assert "mine" not in root.names()
    (left,) = deletions_broken_off(root)
    assert left.size_bytes == 2
    remove(root, left)
    assert root.names() == []


def test_only_the_link_to_a_run_goes(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/run.json").write_text("{}")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/linked").symlink_to(tmp_path / "elsewhere")
    Storage(str(tmp_path / "runs")).child("linked").discard("")
    assert list((tmp_path / "runs").iterdir()) == [] and (tmp_path / "elsewhere/run.json").exists()


def test_who_is_left_alone(run: Storage) -> None:
    assert why_not_now(run, look(run, "run")) is None
    with held(run):
        why = why_not_now(run, look(run, "run"))
        assert why is not None and why.startswith("it is in use by process ")
    far = Storage("mock://runs")
    now = Overview("far", "run", "unfinished", changed_s=time.time())
    why = why_not_now(far, now)
    assert why is not None and "no locks" in why
    assert why_not_now(far, replace(now, state="finished")) is None
    assert why_not_now(far, replace(now, changed_s=time.time() - QUIET_S - 60)) is None
