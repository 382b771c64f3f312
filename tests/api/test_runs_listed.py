"""All runs of a storage: listed, shown, cleaned."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from metaray.api import cleaning
from metaray.api.cleaning import clean_leftovers, remove_runs
from metaray.api.runs import list_runs, run_names, show_run
from metaray.errors import InputError, RunFailed
from metaray.experiment.experiment import Experiment
from metaray.records.events import Fanout
from metaray.records.failure import write_failure
from metaray.records.journal import JOURNAL_FOLDER
from metaray.records.run import Run, held
from metaray.records.storage import Storage
from metaray.tuning.ledger import open_ledger
from metaray.tuning.proposers import Work
from tests.training.whole_runs import train_in_process
from tests.tuning.small import make_search, pretend


@pytest.fixture(scope="module")
def all_kinds(make_waves: Callable[..., Experiment], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with a finished run, a failed one, a damaged one, one never begun, a search, and other things."""
    root = Storage(str(tmp_path_factory.mktemp("runs")))
    experiment = make_waves()
    done = Run.of(root, experiment, "done")
    done.begin(experiment, tags={"command": "metaray train x", "git.commit": "abc"}, tracking_run="tracked")
    train_in_process(experiment, done.storage, Fanout([]))
    for name in ("fell", "spoilt"):
        shutil.copytree(root.local_folder / "done", root.local_folder / name)
    root.delete_file("fell/result.json")
    write_failure(root.child("fell"), RunFailed("it fell", tracebacks="Traceback of it"))
    root.write("spoilt/run.json", b"{")
    with held(root.child("refused")):
        pass
    ledger = open_ledger(root.child("search"), make_search(experiment), {})
    Run.of(ledger.storage, experiment, "trial-0000").begin(experiment, tags={}, tracking_run="t")
    ledger.propose(0, {"algorithm.inner_lr": 0.1})
    pretend(ledger, Work(0))
    (root.local_folder / "notes").mkdir()
    root.write("notes.txt", b"mine")
    for place, age_s in (("done", 50), ("fell", 40), ("spoilt", 30), ("search", 20)):
        for path in (root.local_folder / place).rglob("*"):
            os.utime(path, (1e9 - age_s, 1e9 - age_s))
    return root.local_folder


@pytest.fixture
def runs(all_kinds: Path, tmp_path: Path) -> Path:
    shutil.copytree(all_kinds, tmp_path / "runs")
    return tmp_path / "runs"


def test_all_are_listed_newest_first_whatever_state_they_are_in(runs: Path) -> None:
    found = list_runs(str(runs))
    assert [(one.name, one.kind, one.state) for one in found] == [
        ("search", "search", "unfinished"),
        ("spoilt", "run", "damaged"),
        ("fell", "run", "failed"),
        ("done", "run", "finished"),
        ("refused", "run", "not begun"),
    ]
    assert list_runs(str(runs / "nowhere")) == []


def test_a_run_is_shown(runs: Path, make_waves: Callable[..., Experiment]) -> None:
    detail = show_run(str(runs), "done")
    assert detail.seen.state == "finished" and detail.folder == str(runs / "done")
    assert detail.tags == {"command": "metaray train x", "git.commit": "abc"}
    assert detail.result is not None and detail.result.num_steps == make_waves().num_steps
    assert detail.learner == str(runs / "done/learner") and detail.failure == "" and detail.notes == []
    last = {entry.key: entry.step for entry in detail.last}
    assert last["val/mse"] == make_waves().num_steps and "train/loss" in last
    assert detail.checkpoints and detail.checkpoints[-1] == make_waves().num_steps


def test_a_failed_run_is_shown_with_what_ended_it(runs: Path) -> None:
    detail = show_run(str(runs), "fell")
    assert "it fell" in detail.failure and "Traceback of it" in detail.failure
    assert detail.result is None and detail.learner is None


def test_damage_is_noted(runs: Path) -> None:
    newest = max((runs / "spoilt/checkpoints").iterdir())
    (newest / "state.safetensors").write_bytes(b"no")
    segment = max((runs / "spoilt" / JOURNAL_FOLDER).iterdir())
    segment.write_bytes(b"no\n")
    detail = show_run(str(runs), "spoilt")
    assert detail.seen.state == "damaged"
    assert any("run.json" in note for note in detail.notes)
    assert any(f"{segment.name} is damaged" in note for note in detail.notes)
    assert f"the checkpoint of step {int(newest.name[5:])} is damaged" in detail.notes


def test_a_search_and_its_trials_are_shown(runs: Path) -> None:
    detail = show_run(str(runs), "search")
    assert detail.seen.kind == "search" and detail.winner is None
    assert [one.name for one in detail.trials] == ["search/trial-0000"]
    assert show_run(str(runs), "search/trial-0000").seen.state == "finished"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dona", "unknown run in .*: 'dona'. Did you mean 'done'\\? Known: done, fell, refused, search, spoilt."),
        ("notes", "unknown run in .*: 'notes'"),
        ("../runs/done", "unknown run in .*: '..'"),
        ("search/trial-0009", "unknown trial of search: 'trial-0009'. Did you mean 'trial-0000'"),
        ("done/checkpoints", "unknown trial of done: 'checkpoints'. Known: none"),
        ("search/../done", "unknown trial of search: '../done'"),
    ],
)
def test_names_of_nothing(runs: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        show_run(str(runs), name)


def test_leftovers_are_listed_and_only_then_deleted(runs: Path) -> None:
    broken = runs / "search/trial-0000/checkpoints/step-000000099"
    broken.mkdir()
    (broken / "state.safetensors").write_bytes(b"half")
    (runs / "search/.trials.json.0f.tmp").write_bytes(b"h")
    (runs / f".gone.{'0' * 32}.tmp").mkdir()
    before = {path for path in runs.rglob("*") if path.name != "lock"}
    found = clean_leftovers(str(runs), delete=False)
    assert {path for path in runs.rglob("*") if path.name != "lock"} == before and not found.done
    paths = {(name, one.path) for name, one in found.found}
    assert {
        ("refused", ""),
        ("search", "trial-0000/checkpoints/step-000000099"),
        ("search", ".trials.json.0f.tmp"),
        (f".gone.{'0' * 32}.tmp", f".gone.{'0' * 32}.tmp"),
    } <= paths
    assert {name for name, _ in paths} <= {"refused", "search", "done", f".gone.{'0' * 32}.tmp"}
    assert set(found.passed_over) == {"spoilt"}
    done = clean_leftovers(str(runs), delete=True)
    assert done.done and done.found == found.found
    assert clean_leftovers(str(runs), delete=False).found == []
    assert run_names(Storage(str(runs))) == ["done", "fell", "search", "spoilt"]
    assert (runs / "search/trial-0000/trial.json").exists() and (runs / "notes.txt").exists()
    assert show_run(str(runs), "done").result is not None


def test_what_runs_is_left_alone(runs: Path) -> None:
    (runs / "fell/.x.0f.tmp").write_bytes(b"")
    (runs / "search/trial-0000/.x.0f.tmp").write_bytes(b"")
    root = Storage(str(runs))
    with held(root.child("fell")), held(root.child("search")), held(root.child("refused")):
        done = clean_leftovers(str(runs), delete=True)
    assert {"fell", "search", "refused", "spoilt"} == set(done.passed_over)
    assert (runs / "fell/.x.0f.tmp").exists() and (runs / "search/trial-0000/.x.0f.tmp").exists()
    with held(root.child("search/trial-0000")):
        done = clean_leftovers(str(runs), delete=True)
    assert (runs / "search/trial-0000/.x.0f.tmp").exists() and not (runs / "fell/.x.0f.tmp").exists()


def test_who_takes_a_run_in_between_keeps_it(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (runs / "fell/.x.0f.tmp").write_bytes(b"")
    monkeypatch.setattr(cleaning, "why_not_now", lambda *_: None)
    with held(Storage(str(runs / "fell"))):
        done = clean_leftovers(str(runs), delete=True)
    assert "is in use by" in done.passed_over["fell"] and (runs / "fell/.x.0f.tmp").exists()


def test_runs_that_are_named_go_whole(runs: Path) -> None:
    found = remove_runs(str(runs), ["spoilt", "search", "spoilt"], delete=False)
    assert [(name, one.what) for name, one in found.found] == [
        ("spoilt", "the whole run"),
        ("search", "the whole search"),
    ]
    assert found.size_bytes > 1000 and (runs / "spoilt").exists()
    remove_runs(str(runs), ["spoilt", "search"], delete=True)
    assert sorted(path.name for path in runs.iterdir()) == ["done", "fell", "notes", "notes.txt", "refused"]


def test_all_named_runs_or_none(runs: Path) -> None:
    with (
        held(Storage(str(runs / "fell"))),
        pytest.raises(InputError, match="run 'fell' cannot be removed now: .* in use"),
    ):
        remove_runs(str(runs), ["done", "fell"], delete=True)
    with pytest.raises(InputError, match="unknown run"):
        remove_runs(str(runs), ["done", "nobody"], delete=True)
    with pytest.raises(InputError, match="unknown run"):
        remove_runs(str(runs), ["search/trial-0000"], delete=True)
    assert run_names(Storage(str(runs))) == ["done", "fell", "refused", "search", "spoilt"]


def test_a_search_is_cleaned_from_outside(runs: Path) -> None:
    with pytest.raises(InputError, match="is a search, whose trials stay together"):
        clean_leftovers(f"{runs}/search", delete=True)
    with pytest.raises(InputError, match="is a search, whose trials stay together"):
        remove_runs(f"{runs}/search", ["trial-0000"], delete=True)


def test_what_cannot_be_deleted_is_said(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("read-only")

    monkeypatch.setattr(cleaning, "remove", refuse)
    with pytest.raises(RunFailed, match="/runs/done/checkpoints/step-.* could not be deleted: read-only"):
        clean_leftovers(str(runs), delete=True)
