"""What a search does next. Who carries it out is made up: training only pretends, and is over at once."""

import os
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from metaray.errors import RunStopped
from metaray.experiment.experiment import Evaluation, Experiment
from metaray.records.storage import Storage
from metaray.tuning.ledger import OUTCOME, TRIAL, Ledger, open_ledger, read_header
from metaray.tuning.proposers import OneByOne, Population, Work, proposer_of
from metaray.tuning.search import INNER_LR
from tests.training.whole_runs import Memory, train_part_in_process
from tests.tuning.small import LR, carry_out, entries, make_search, pretend, works

MakeExperiment = Callable[..., Experiment]
MakeLedger = Callable[..., Ledger]

PBT = {"searcher": "pbt", "scheduler": "none"}
MEMBERS, GENERATIONS, STEPS = 8, 3, 12
"""Of the searches below; two members are replaced after each generation but the last."""


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of small files, none of which needs to outlive one."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def make(tmp_path: Path, make_waves: MakeExperiment) -> MakeLedger:
    """`make("name", searcher="tpe")`: a ledger of four trials; under a name of before, as another process reads it."""
    judged = Evaluation(every=2, val_episodes=2, test_episodes=2)

    def ledger(name: str = "search", **fields: Any) -> Ledger:
        experiment = make_waves(num_steps=STEPS, evaluation=judged)
        return open_ledger(Storage(str(tmp_path / name)), make_search(experiment, **fields), {})

    return ledger


def again(ledger: Ledger) -> Ledger:
    return Ledger(ledger.storage, read_header(ledger.storage))


def described(ledger: Ledger) -> dict[str, bytes]:
    """What was proposed, decided, and became of it: all files but those that were timed."""
    root = Path(ledger.storage.root)
    names = (TRIAL, OUTCOME, "generation-*.json")
    return {str(path.relative_to(root)): path.read_bytes() for name in names for path in sorted(root.rglob(name))}


def numbers(found: list[Any]) -> list[int]:
    return [work.number for work in found if isinstance(work, Work)]


@pytest.mark.parametrize("searcher", ["random", "grid", "tpe"])
def test_each_is_proposed_once(searcher: str, make: MakeLedger) -> None:
    ledger = make(searcher=searcher, trials=7)
    proposer = proposer_of(ledger)
    assert isinstance(proposer, OneByOne)
    assert carry_out(proposer) == [Work(number) for number in range(7)]
    assert proposer.next(()) == OneByOne(again(ledger)).next(()) == "done"
    assert [trial.status for trial in again(ledger).trials()] == ["finished"] * 7
    assert len({str(entry.settings) for entry in entries(ledger)}) == 7


@pytest.mark.parametrize("searcher", ["random", "grid", "tpe"])
def test_all_at_once(searcher: str, make: MakeLedger) -> None:
    running: list[int] = []
    ledger = make(searcher=searcher, trials=5)
    assert works(proposer_of(ledger), running) == [*map(Work, range(5)), "done"]
    assert running == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("searcher", ["random", "grid"])
def test_the_same_is_proposed_in_a_new_ledger(searcher: str, make: MakeLedger) -> None:
    first, second, other = (make(str(i), searcher=searcher, trials=4, seed=i // 2) for i in range(3))
    carry_out(OneByOne(first))
    works(OneByOne(second), [])  # whatever is known by then
    works(OneByOne(other), [])
    assert entries(first) == entries(second) != entries(other)
    assert [entry.settings for entry in entries(first)] == [first.search.initial(number) for number in range(4)]


def test_tpe_learns_from_what_ended(make: MakeLedger) -> None:
    searcher = {"searcher": "tpe", "trials": 12}
    first, second, blind = (make(name, **searcher) for name in ("first", "second", "blind"))
    carry_out(OneByOne(first))
    carry_out(OneByOne(second))
    works(OneByOne(blind), [])
    assert entries(first) == entries(second)
    assert entries(first)[:4] == entries(blind)[:4] and entries(first) != entries(blind)


@pytest.mark.parametrize("searcher", ["random", "grid", "tpe"])
def test_after_a_kill_what_is_unfinished_comes_first(searcher: str, make: MakeLedger) -> None:
    ledger = make(searcher=searcher, trials=6)
    running: list[int] = []
    proposer = OneByOne(ledger)
    for _ in range(4):
        work = proposer.next(running)
        assert isinstance(work, Work)
        running.append(work.number)
    ledger.end(1, "finished")
    ledger.end(2, "failed", "out of memory")
    before = entries(ledger)
    ledger = again(ledger)
    assert numbers(works(OneByOne(ledger), [])) == [0, 3, 4, 5]
    assert entries(ledger)[:4] == before
    # What was running then may be running now.
    assert numbers(works(OneByOne(again(ledger)), [0])) == [3, 4, 5]
    for number, status in ((0, "stopped early"), (3, "finished"), (4, "finished"), (5, "failed")):
        ledger.end(number, status)  # type: ignore[arg-type]
    assert OneByOne(again(ledger)).next(()) == "done"


@pytest.mark.parametrize("searcher", ["random", "tpe", "grid"])
def test_wrong_values_are_passed_by(searcher: str, make: MakeLedger) -> None:
    fields = {"space": {INNER_LR: "uniform(-1, 1)"}, "scheduler": "none", "trials": 6}
    ledger = make(searcher=searcher, **fields)
    found = numbers(works(proposer_of(ledger), []))
    statuses = [trial.status for trial in ledger.trials()]
    assert found == [number for number, status in enumerate(statuses) if status == "waiting"]
    assert set(statuses) == {"waiting", "failed"} and len(statuses) == 6


def test_a_population_trains_generation_by_generation(make: MakeLedger) -> None:
    ledger = make(trials=MEMBERS, generations=GENERATIONS, **PBT)
    found = carry_out(proposer_of(ledger))
    assert isinstance(proposer_of(ledger), Population)
    ends = [4, 8, None]
    assert [work.until for work in found] == [until for until in ends for _ in range(MEMBERS)]
    generations = [{work.number for work in found if work.until == until} for until in ends]
    assert generations[0] == set(range(8))
    for index, (before, after) in enumerate(pairwise(generations)):
        copies = ledger.copies(index)
        assert copies is not None and len(copies) == 2
        gone, fresh = {copy.replaces for _, copy in copies}, {number for number, _ in copies}
        assert after == before - gone | fresh and not before & fresh
        for number, copy in copies:
            donor, mine = ledger.entry(copy.of), ledger.entry(number)
            old, new = donor.settings[INNER_LR], mine.settings[INNER_LR]
            assert mine.origin == (copy.of, ends[index]) and copy.of in before - gone
            assert new["steps"] == [*old["steps"], ends[index]]
            assert new["values"] == [*old["values"], old["values"][-1] * copy.factor]
            assert ledger.trial(copy.replaces).status == "stopped early"
            name = ledger.trial(copy.of).name
            assert ledger.trial(copy.replaces).why == f"replaced by a copy of {name} after generation {index + 1}"
    assert ledger.numbers() == list(range(12))
    assert {trial.number for trial in ledger.trials() if trial.status == "finished"} == generations[2]
    assert all(len(ledger.trial(number).curve) == 6 for number in generations[2])


def test_populations_improve(make: MakeLedger) -> None:
    """Pretended training is a sum of what each step's rate is worth; errors, so less is better: the worst are best."""
    ledger = make(trials=MEMBERS, generations=6, **PBT)
    carry_out(Population(ledger))
    alone = make("alone", trials=MEMBERS)
    carry_out(OneByOne(alone))
    last = [[trial.curve[-1].value for trial in one.trials() if trial.status == "finished"] for one in (ledger, alone)]
    assert len(last[0]) == len(last[1]) == MEMBERS and sum(last[0]) < sum(last[1]) and max(last[0]) < max(last[1])


def test_a_generation_waits_for_its_members(make: MakeLedger) -> None:
    ledger = make(trials=MEMBERS, generations=GENERATIONS, **PBT)
    running: list[int] = []
    proposer = Population(ledger)
    first = works(proposer, running)
    assert first == [*(Work(number, 4) for number in range(8)), "wait"]
    for work in first[:-1]:
        assert isinstance(work, Work)
        pretend(ledger, work)
        assert ledger.copies(0) is None and proposer.next(running) == "wait"
        running.remove(work.number)
        if running:  # one that has just ended is not asked again
            assert proposer.next(running) == "wait"
    second = works(proposer, running)
    assert [work.until for work in second[:-1]] == [8] * 8 and second[-1] == "wait"  # type: ignore[union-attr]
    assert set(numbers(second)) > {8, 9} and len(ledger.numbers()) == 10


def test_a_member_that_was_interrupted_goes_on(make: MakeLedger) -> None:
    ledger = make(trials=4, generations=GENERATIONS, **PBT)
    running: list[int] = []
    proposer = Population(ledger)
    works(proposer, running)
    for number in (0, 2):
        pretend(ledger, Work(number, 4))
    pretend(ledger, Work(3, 2))
    assert numbers(works(Population(again(ledger)), [])) == [1, 3]


def test_members_that_failed_are_replaced(make: MakeLedger) -> None:
    ledger = make(trials=MEMBERS, generations=GENERATIONS, **PBT)
    proposer, failed = Population(ledger), {0: 0, 1: 2, 4: 0}
    for work in works(proposer, [])[:-1]:
        assert isinstance(work, Work)
        if work.number in failed:
            if failed[work.number]:
                pretend(ledger, Work(work.number, failed[work.number]))
            ledger.end(work.number, "failed", "diverged")
        else:
            pretend(ledger, work)
    found = carry_out(proposer)
    copies = ledger.copies(0)
    assert copies is not None and [copy.replaces for _, copy in copies] == [0, 1, 4]
    assert not {work.number for work in found} & failed.keys()
    assert all((ledger.trial(number).status, ledger.trial(number).why) == ("failed", "diverged") for number in failed)
    assert sum(trial.status == "finished" for trial in ledger.trials()) == MEMBERS


def test_a_member_that_failed_with_a_score_is_replaced(make: MakeLedger) -> None:
    """It may have no checkpoint of that step: to copy it would fail, and fail again whenever the search goes on."""
    ledger = make(trials=MEMBERS, generations=GENERATIONS, **PBT)
    proposer = Population(ledger)
    for work in works(proposer, [])[:-1]:
        assert isinstance(work, Work)
        pretend(ledger, work)
    best = min(ledger.trials(), key=lambda trial: trial.curve[-1].value).number
    shutil.rmtree(Path(ledger.run_of(best).root) / "checkpoints")
    ledger.end(best, "failed", "no space left on device")
    carry_out(proposer)
    assert best in [copy.replaces for _, copy in ledger.copies(0) or []]


def test_where_all_failed_there_is_nothing_to_do(make: MakeLedger) -> None:
    ledger = make(trials=4, generations=GENERATIONS, **PBT)
    proposer = Population(ledger)
    works(proposer, [])
    for number in range(4):
        ledger.end(number, "failed", "diverged")
    assert proposer.next(()) == Population(again(ledger)).next(()) == "done" and len(ledger.numbers()) == 4


class Killed(BaseException):
    """Of the driver's process."""


class Writes:
    """Counts the driver's writes, and kills it before the n-th, or just after."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        self.count = 0
        write = Storage.write

        def guarded(storage: Storage, name: str, data: bytes) -> None:
            if self.left == 0:
                raise Killed
            self.left = None if self.left is None else self.left - 1
            self.count += 1
            write(storage, name, data)

        patch.setattr(Storage, "write", guarded)


def test_a_population_that_is_killed_comes_to_the_same(make: MakeLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before each single write of a decision and its copies, once, it proposes what it would have."""
    fields = {"trials": MEMBERS, "generations": GENERATIONS, **PBT}
    undisturbed = make("undisturbed", **fields)
    carry_out(Population(undisturbed))
    expected = described(undisturbed)
    assert len(expected) == 12 + 12 + 2

    begun = make("begun", **fields)
    for work in works(Population(begun), [])[:-1]:
        assert isinstance(work, Work)
        pretend(begun, work)
    writes = Writes(monkeypatch)
    Population(duplicate(begun, "counted")).next(())
    assert writes.count >= 1 + 2 * 6  # the decision; of each copy journal, three files, description, the other's end
    for killed_before in range(writes.count):
        ledger = duplicate(begun, f"killed-{killed_before}")
        writes.left = killed_before
        with pytest.raises(Killed):
            Population(ledger).next(())
        writes.left = None
        carry_out(Population(again(ledger)))
        assert described(ledger) == expected, f"killed before write {killed_before}"


def duplicate(ledger: Ledger, name: str) -> Ledger:
    target = Path(ledger.storage.root).with_name(name)
    shutil.copytree(ledger.storage.root, target)
    storage = Storage(str(target))
    return Ledger(storage, read_header(storage))


def test_a_first_population_that_is_killed_comes_to_the_same(make: MakeLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"trials": 4, "generations": GENERATIONS, **PBT}
    undisturbed = make("undisturbed", **fields)
    carry_out(Population(undisturbed))
    killed = make("killed", **fields)
    writes, survived = Writes(monkeypatch), 0
    while True:
        ledger, writes.left = again(killed), 3  # each process writes three times
        try:
            found = works(Population(ledger), [])
        except Killed:
            survived += 1
            continue
        break
    writes.left = None
    assert survived == 1 and sorted(numbers(found)) == [0, 1, 2, 3]
    carry_out(Population(again(killed)))
    assert described(killed) == described(undisturbed)


def test_real_trials_that_are_killed_come_to_the_same(
    tmp_path: Path, make_waves: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With parameters and optimisers, in process: between a decision and its copy, and in the midst of a generation."""
    experiment = make_waves(num_steps=4, evaluation=Evaluation(every=2, val_episodes=2, test_episodes=2))
    search = make_search(experiment, {INNER_LR: LR}, trials=3, generations=2, **PBT)

    def train(ledger: Ledger, work: Work) -> None:
        entry = ledger.entry(work.number)
        try:
            train_part_in_process(
                entry.experiment, ledger.run_of(work.number), Memory(), device="cpu", until=work.until
            )
            ledger.end(work.number, "finished")
        except RunStopped:
            pass

    def whole(name: str, *, kill: bool) -> Ledger:
        ledger = open_ledger(Storage(str(tmp_path / name)), search, {})
        proposer = Population(ledger)
        for step in range(100):
            if kill and step == 3:
                with monkeypatch.context() as patch:
                    Writes(patch).left = 3  # the decision, the journal, the checkpoint's first file
                    with pytest.raises(Killed):
                        proposer.next(())
            if kill:
                proposer = Population(again(ledger))
            work = proposer.next(())
            if not isinstance(work, Work):
                break
            if kill and step in (1, 4):
                train(proposer.ledger, Work(work.number, proposer.ledger.step_of(work.number) + 1))
            train(proposer.ledger, work)
        assert work == "done"
        return again(ledger)

    left_alone, killed = whole("left-alone", kill=False), whole("killed", kill=True)
    assert described(killed) == described(left_alone) and killed.numbers() == [0, 1, 2, 3]
    for one, other in zip(killed.trials(), left_alone.trials(), strict=True):
        assert (one.status, one.curve) == (other.status, other.curve)
        finals = [ledger.run_of(one.number) for ledger in (killed, left_alone)]
        if one.status == "finished":
            state = "checkpoints/step-000000004/state.safetensors"
            assert finals[0].read(state) == finals[1].read(state)


def test_the_search_says_which(make: MakeLedger) -> None:
    kinds = {"random": OneByOne, "tpe": OneByOne, "grid": OneByOne, "pbt": Population}
    for searcher, kind in kinds.items():
        assert type(proposer_of(make(searcher, searcher=searcher, scheduler="none"))) is kind


def test_a_finished_search_is_done_without_a_write(make: MakeLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    for searcher in ("random", "pbt"):
        ledger = make(searcher, searcher=searcher, scheduler="none", generations=GENERATIONS)
        carry_out(proposer_of(ledger))
        with monkeypatch.context() as patch:
            Writes(patch).left = 0
            assert proposer_of(again(ledger)).next(()) == "done"
