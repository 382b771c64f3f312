"""Searches at a glance."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from metaray.experiment.experiment import Experiment
from metaray.records.run import Run, held
from metaray.records.storage import Storage
from metaray.tuning import table
from metaray.tuning.ledger import Ledger, open_ledger
from metaray.tuning.overview import is_search, look_at_search, look_at_trials, storage_of_all, trials_of, winner_of
from metaray.tuning.proposers import Work
from tests.tuning.small import make_search, pretend


@pytest.fixture
def ledger(make_experiment: Callable[..., Experiment], tmp_path: Path) -> Ledger:
    """A search of four trials, of which two are trained, one failed, and one is proposed."""
    found = open_ledger(Storage(str(tmp_path / "search")), make_search(make_experiment()), {})
    for number, rate in enumerate((0.1, 0.2, 0.3, 0.4)):
        entry = found.propose(number, {"algorithm.inner_lr": rate})
        if number < 3:
            run = Run(f"trial-{number}", found.run_of(number))
            run.begin(entry.experiment, tags={}, tracking_run=f"tracked-{number}")
    for number in (0, 1):
        pretend(found, Work(number))
    found.end(2, "failed", "it fell over")
    return found


def test_a_search_that_goes_on(ledger: Ledger) -> None:
    seen = look_at_search(ledger.storage, "mine")
    assert (seen.name, seen.kind, seen.state, seen.done, seen.planned) == ("mine", "search", "unfinished", 3, 4)
    assert (seen.experiment, seen.holder, seen.why) == (ledger.search.experiment.name, "", "")
    assert is_search(ledger.storage) and not is_search(ledger.run_of(0))
    with held(ledger.storage):
        seen = look_at_search(ledger.storage, "mine")
        assert seen.state == "running" and seen.holder


def test_its_trials(ledger: Ledger) -> None:
    trials = look_at_trials(ledger.storage, "mine")
    assert [(one.name, one.state) for one in trials] == [
        ("mine/trial-0000", "finished"),
        ("mine/trial-0001", "finished"),
        ("mine/trial-0002", "failed"),
        ("mine/trial-0003", "not begun"),
    ]
    assert trials[2].why == "it fell over" and trials[0].tracking_run == "tracked-0"
    assert trials_of(ledger.storage) == [f"trial-000{number}" for number in range(4)]


def test_trials_share_the_storage_of_all_runs(ledger: Ledger) -> None:
    whole = ledger.storage.parent
    assert storage_of_all(ledger.storage) == storage_of_all(whole) == whole


def test_a_search_that_is_over_names_its_winner(ledger: Ledger) -> None:
    assert winner_of(ledger.storage) is None
    ledger.end(3, "stopped early", "by asha")
    trials = ledger.trials()
    ledger.storage.write("trials.json", table.to_json(trials, ledger.search.optimises))
    ledger.storage.write("winner.json", b"{}")
    seen = look_at_search(ledger.storage, "mine")
    assert (seen.state, seen.done) == ("finished", 4)
    assert winner_of(ledger.storage) == "trial-0000"
    assert look_at_trials(ledger.storage, "mine")[3].state == "stopped early"


@pytest.mark.parametrize("text", [b"{", b"{}", b'{"search": 3}', b'{"search": {"experiment": []}}'])
def test_a_damaged_search(ledger: Ledger, text: bytes) -> None:
    ledger.storage.write("search.json", text)
    seen = look_at_search(ledger.storage, "mine")
    assert seen.state == "damaged" and "search.json" in seen.why


def test_a_damaged_outcome_is_of_its_trial(ledger: Ledger) -> None:
    ledger.run_of(1).write("outcome.json", b"{")
    states = [one.state for one in look_at_trials(ledger.storage, "mine")]
    assert states == ["finished", "damaged", "failed", "not begun"]


def test_damaged_trials_of_a_search_that_is_over(ledger: Ledger) -> None:
    ledger.storage.write("trials.json", json.dumps([3]).encode())
    seen = look_at_search(ledger.storage, "mine")
    assert seen.state == "damaged" and "it holds no trials" in seen.why
