"""A search in MLflow, from a ledger whose trials only pretend to have trained."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaray.errors import RunFailed
from metaray.experiment.experiment import Experiment
from metaray.records.storage import Storage
from metaray.tracking import search_runs as search_runs
from metaray.tracking.client import open_client
from metaray.tracking.mlflow_run import MlflowRun
from metaray.tracking.search_runs import SearchRuns
from metaray.tracking.server import MlflowServer, Unreachable
from metaray.tuning.ledger import Ledger, open_ledger
from metaray.tuning.proposers import Work, proposer_of
from tests.patience import PATIENT_S
from tests.tuning.small import carry_out, children, make_search, pretend


@pytest.fixture(autouse=True)
def rests_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests look at what `rest` waited for."""
    monkeypatch.setattr(search_runs, "RESTS_WITHIN_S", PATIENT_S)


@pytest.fixture
def ledger(make_experiment: Callable[..., Experiment], tmp_path: Path) -> Ledger:
    """Of two trials: one finished, one failed."""
    search = make_search(make_experiment(name=f"logged-{tmp_path.name}"), trials=2, scheduler="none")
    found = open_ledger(Storage(str(tmp_path / "search")), search, {"command": "metaray tune"})
    proposer = proposer_of(found)
    first, second = proposer.next(()), proposer.next((0,))
    assert isinstance(first, Work) and isinstance(second, Work)
    pretend(found, first)
    found.end(second.number, "failed", "the loss is not finite")
    return found


def refuse_notes(text: str) -> None:
    raise AssertionError(text)


def test_a_run_for_the_search_and_one_below_for_each_trial(ledger: Ledger, database: str) -> None:
    book = SearchRuns(ledger, "mine", MlflowServer(database), refuse_notes)
    for number in (0, 1, 0):
        book.touch(number)
    book.rest()
    good, bad = children(database, book.parent.id)
    assert (good.info.run_name, good.info.status, good.data.tags["search.status"]) == (
        "trial-0000",
        "FINISHED",
        "finished",
    )
    assert (bad.info.status, bad.data.tags["search.status"], bad.data.tags["search.why"]) == (
        "FAILED",
        "failed",
        "the loss is not finite",
    )
    assert float(good.data.params["algorithm.inner_lr"]) == ledger.entry(0).settings["algorithm.inner_lr"]
    history = open_client(database).get_metric_history(good.info.run_id, "val/accuracy")
    assert [metric.value for metric in history] == [judged.value for judged in ledger.trial(0).curve]
    parent = open_client(database).get_run(book.parent.id)
    assert parent.info.run_name == "mine" and parent.data.tags["command"] == "metaray tune"
    assert parent.data.params["search.space.algorithm.inner_lr"] == "loguniform(0.001, 1.0)"


def test_another_process_goes_on_with_the_same_runs(ledger: Ledger, database: str) -> None:
    first = SearchRuns(ledger, "mine", MlflowServer(database), refuse_notes)
    first.bring_all()
    first.rest()
    again = Ledger(ledger.storage, ledger.header)
    second = SearchRuns(again, "mine", MlflowServer(database), refuse_notes)
    second.bring_all()
    second.rest()
    assert second.parent == first.parent
    runs = children(database, first.parent.id)
    assert [run.data.tags["search.trial"] for run in runs] == ["0", "1"]
    history = open_client(database).get_metric_history(runs[0].info.run_id, "val/accuracy")
    assert len(history) == len(ledger.trial(0).curve)


def test_a_run_that_a_kill_kept_from_being_written_down_is_found(ledger: Ledger, database: str) -> None:
    book = SearchRuns(ledger, "mine", MlflowServer(database), refuse_notes)
    tags = {"search.id": ledger.header.id, "search.trial": "0", "mlflow.parentRunId": book.parent.id}
    orphan = MlflowRun.create(MlflowServer(database), ledger.search.experiment.name, "trial-0000", {}, tags).id
    book.bring_all()
    book.rest()
    assert children(database, book.parent.id)[0].info.run_id == orphan
    assert len(children(database, book.parent.id)) == 2


def test_a_population_has_a_run_for_each_copy(
    make_waves: Callable[..., Experiment], tmp_path: Path, database: str
) -> None:
    fields: dict[str, Any] = {"searcher": "pbt", "scheduler": "none", "trials": 4, "generations": 3}
    search = make_search(make_waves(name=f"bred-{tmp_path.name}", num_steps=12), **fields)
    ledger = open_ledger(Storage(str(tmp_path / "search")), search, {})
    carry_out(proposer_of(ledger))
    book = SearchRuns(ledger, "mine", MlflowServer(database), refuse_notes)
    book.bring_all()
    book.rest()
    runs = children(database, book.parent.id)
    assert len(runs) == len(ledger.numbers()) == 6
    for run, trial in zip(runs, ledger.trials(), strict=True):
        assert ("search.origin" in run.data.tags) == bool(trial.inherited)
        assert run.data.params["algorithm.inner_lr.steps"] == str(list(trial.settings["algorithm.inner_lr"]["steps"]))


def test_a_server_that_goes_away_is_told_of_once(
    ledger: Ledger, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    notes: list[str] = []
    book = SearchRuns(ledger, "mine", MlflowServer(database), notes.append)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(book, "_server", MlflowServer(away))
    for number in (0, 1, 0):
        book.touch(number)
    book.rest()
    assert len(notes) == 1 and "trials wait in" in notes[0]
    with pytest.raises((Unreachable, RunFailed), match="can't be reached"):
        book.bring_all()
    monkeypatch.setattr(book, "_server", MlflowServer(database))
    book.bring_all()
    assert len(children(database, book.parent.id)) == 2
