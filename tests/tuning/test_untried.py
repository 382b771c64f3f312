"""No two trials of a search train the same experiment. Training is made up, and over at once."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaray.experiment.experiment import Evaluation, Experiment
from metaray.records.storage import Storage
from metaray.tuning.ledger import Ledger, open_ledger, read_header
from metaray.tuning.proposers import Work, proposer_of
from metaray.tuning.search import INNER_LR
from metaray.tuning.untried import why_no_more
from tests.tuning.small import carry_out, entries, make_search, works

MakeLedger = Callable[..., Ledger]

PBT = {"searcher": "pbt", "scheduler": "none", "generations": 3}


@pytest.fixture
def make(tmp_path: Path, make_waves: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch) -> MakeLedger:
    """`make("name", searcher="tpe")`: a ledger of trials of twelve steps."""
    monkeypatch.setattr(os, "fsync", lambda file: None)
    judged = Evaluation(every=2, val_episodes=2, test_episodes=2)

    def ledger(name: str = "search", **fields: Any) -> Ledger:
        search = make_search(make_waves(num_steps=12, evaluation=judged), **fields)
        return open_ledger(Storage(str(tmp_path / name)), search, {})

    return ledger


def again(ledger: Ledger) -> Ledger:
    return Ledger(ledger.storage, read_header(ledger.storage))


SEARCHERS = ["random", "tpe", "grid"]


def trained(ledger: Ledger) -> list[str]:
    """The experiments of all trials."""
    return [entry.experiment.to_json() for entry in entries(ledger)]


@pytest.mark.parametrize("searcher", SEARCHERS)
@pytest.mark.parametrize(
    ("space", "different"),
    [
        ({INNER_LR: "choice(0.1, 0.2, 0.4)", "algorithm.inner_steps": "choice(1, 2)"}, 6),
        ({"algorithm.inner_steps": "randint(1, 4)", "seed": "lograndint(1, 4)"}, 9),
        ({"algorithm.inner_steps": "choice(1, 1.0, 2)", "seed": "choice(3, 3.0)"}, 2),  # fields make integers of them
    ],
)
def test_no_combination_is_trained_twice_and_the_search_says_when_all_are_tried(
    searcher: str, space: dict[str, str], different: int, make: MakeLedger
) -> None:
    ledger = make(searcher=searcher, space=space, trials=20, scheduler="none")
    assert len(carry_out(proposer_of(ledger))) == different
    assert len(set(trained(ledger))) == len(trained(ledger)) == different
    assert proposer_of(again(ledger)).next(()) == "done"
    total = 6 if different != 9 else 9
    why = why_no_more(ledger.search, different)
    if searcher == "grid" and different == total:
        assert why is None  # all that a grid is asked for
    else:
        assert why is not None and f"all {total} combinations are tried" in why
        assert ("they make 2 different experiments" in why) == (different < total)


@pytest.mark.parametrize("searcher", ["random", "tpe"])
def test_what_runs_was_stopped_or_failed_is_not_proposed_again(searcher: str, make: MakeLedger) -> None:
    """After a kill in the midst of it, too, it proposes what it would have."""
    space = {INNER_LR: "choice(0.1, 0.2, 0.3)", "algorithm.inner_steps": "randint(1, 4)"}
    ledgers = [make(name, searcher=searcher, space=space, trials=9) for name in ("whole", "killed")]
    for ledger in ledgers:
        proposer, running = proposer_of(ledger), []
        for number, status in enumerate(("stopped early", "failed", None, None, "stopped early", None, None, None)):
            if ledger is ledgers[1]:
                proposer = proposer_of(again(ledger))
            running += [work.number for work in [proposer.next(running)] if isinstance(work, Work)]
            if status is not None:
                ledger.end(number, status)  # type: ignore[arg-type]
                running.remove(number)
        assert works(proposer, running) == [Work(8), "done"]
        assert len(set(trained(ledger))) == 9
    assert entries(ledgers[0]) == entries(ledgers[1])


def test_a_large_space_is_drawn_from_as_before(make: MakeLedger) -> None:
    """Only what was tried is drawn anew; a search that begins with twins, from before, goes on without."""
    space = {"seed": "randint(0, 9)"}
    ledger = make(space=space, trials=9)
    drawn = [ledger.search.initial(number) for number in range(9)]
    assert len(set(map(str, drawn))) < 9
    for number in range(4):
        ledger.propose(number, {"seed": 5})
    carry_out(proposer_of(ledger))
    found = [entry.settings["seed"] for entry in entries(ledger)]
    assert found[:4] == [5] * 4 and len(set(found)) == 6 and 5 not in found[4:]
    assert found[4:7] == [settings["seed"] for settings in drawn[4:7]]


def test_members_of_a_population_differ(make: MakeLedger) -> None:
    ledger = make(trials=8, space={INNER_LR: "choice(0.05, 0.1, 0.2)"}, **PBT)
    assert ledger.search.population == 3
    carry_out(proposer_of(ledger))
    assert len(set(trained(ledger)[:3])) == 3
    assert "3 of 8 trials: all 3 combinations are tried" in str(why_no_more(ledger.search, len(ledger.numbers())))
    assert why_no_more(make("wide", trials=8, **PBT).search, 12) is None
