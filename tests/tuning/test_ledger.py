"""What is on disk of a search."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from metaray.config import replace
from metaray.data import FunctionFamily
from metaray.errors import InputError, RunStopped
from metaray.experiment.experiment import Experiment
from metaray.manifest import sealed_json, unsealed_json
from metaray.records.checkpoint import load_checkpoint
from metaray.records.checkpoint_files import saved_steps
from metaray.records.journal import Journal, Metric, read_journal
from metaray.records.run import RECORD_FILE, Run
from metaray.records.storage import Storage
from metaray.training.outer_loop import initial_state
from metaray.tuning.ledger import (
    OUTCOME,
    SEARCH,
    TRIAL,
    Ledger,
    Origin,
    curve_of,
    end_trial,
    open_ledger,
    read_entry,
    read_header,
    read_outcome,
)
from metaray.tuning.population import Copy
from metaray.tuning.search import INNER_LR, Search
from metaray.tuning.trial import Objective, Trial, TrialScore
from tests.training.whole_runs import Memory, train_in_process, train_part_in_process
from tests.tuning.small import LR, checkpoint, make_search

MakeExperiment = Callable[..., Experiment]

BOTH = {INNER_LR: LR, "algorithm.inner_steps": "choice(1, 2)"}
ACCURACY = Objective("accuracy", highest=True)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "search"))


@pytest.fixture
def search(make_experiment: MakeExperiment) -> Search:
    return make_search(make_experiment(), BOTH)


@pytest.fixture
def ledger(storage: Storage, search: Search) -> Ledger:
    return open_ledger(storage, search, {"command": "test"})


def again(ledger: Ledger) -> Ledger:
    """As another process reads it."""
    return Ledger(ledger.storage, read_header(ledger.storage))


def settings(rate: float = 0.25, steps: int = 2) -> dict[str, Any]:
    return {INNER_LR: rate, "algorithm.inner_steps": steps}


def test_a_new_search_is_written_down(ledger: Ledger, search: Search) -> None:
    found = read_header(ledger.storage)
    assert found == ledger.header == again(ledger).header
    assert (found.search, found.tags, found.fingerprint) == (
        search,
        {"command": "test"},
        search.experiment.source.fingerprint,
    )
    assert len(found.id) == 32 and ledger.numbers() == [] and ledger.trials() == []


def test_two_searches_have_two_ids(tmp_path: Path, search: Search) -> None:
    ids = {open_ledger(Storage(str(tmp_path / name)), search, {}).header.id for name in "ab"}
    assert len(ids) == 2


def test_the_same_search_goes_on(ledger: Ledger, search: Search) -> None:
    ledger.propose(0, settings())
    found = open_ledger(ledger.storage, search, {"command": "another"})
    assert found.header == ledger.header and found.numbers() == [0]


def test_another_search_does_not(ledger: Ledger, make_experiment: MakeExperiment) -> None:
    other = make_search(make_experiment(num_steps=7), {**BOTH, INNER_LR: "loguniform(0.01, 1)"}, trials=5)
    with pytest.raises(InputError, match="holds another search; use another --run name") as caught:
        open_ledger(ledger.storage, other, {})
    assert str(caught.value).splitlines()[1:] == [
        "  experiment.num_steps: 6 -> 7",
        "  space.algorithm.inner_lr: loguniform(0.001, 1.0) -> loguniform(0.01, 1.0)",
        "  trials: 4 -> 5",
    ]


def test_a_search_on_other_data_does_not(ledger: Ledger, search: Search) -> None:
    tree = unsealed_json(ledger.storage.read(SEARCH), where=SEARCH)
    ledger.storage.write(SEARCH, sealed_json(tree | {"fingerprint": "0123456789abcdef"}))
    with pytest.raises(InputError, match=r"started on other data: .* was 0123456789ab\.\.\., now it is "):
        open_ledger(ledger.storage, search, {})


def test_a_run_is_no_search(storage: Storage, search: Search) -> None:
    Run("run", storage).begin(search.experiment, tags={}, tracking_run="tracking-id")
    with pytest.raises(InputError, match=r"is a run of `metaray train`, not a search; use another --run name"):
        open_ledger(storage, search, {})
    assert not storage.exists(SEARCH)


def test_trials_are_read_as_they_were_proposed(ledger: Ledger, search: Search) -> None:
    written = [ledger.propose(number, settings(0.1 * (number + 1))) for number in (0, 1)]
    assert again(ledger).numbers() == ledger.numbers() == [0, 1]
    for number, entry in enumerate(written):
        assert again(ledger).entry(number) == ledger.entry(number) == entry
        assert read_entry(ledger.run_of(number), number) == entry
        fingerprint = search.experiment.source.fingerprint
        assert entry == (number, settings(0.1 * (number + 1)), search.experiment_of(entry.settings), fingerprint, None)
    waiting = Trial(1, settings(0.2), 24)
    assert again(ledger).trial(1) == waiting and ledger.trials() == again(ledger).trials()
    assert again(ledger).trials([1, 5])[1] == Trial(1, settings(0.2), 24, "running")


def test_numbers_are_those_of_trials_that_are_there(ledger: Ledger) -> None:
    for number in (0, 2, 10_001):
        ledger.propose(number, settings())
    ledger.run_of(1).write("metrics/half-copied", b"")
    ledger.storage.write("trial-x/trial.json", b"")
    ledger.storage.write("figures/curves.png", b"")
    assert again(ledger).numbers() == [0, 2, 10_001]


def test_wrong_values_are_written_down_as_failed(ledger: Ledger, search: Search) -> None:
    with pytest.raises(InputError, match="inner_lr"):
        ledger.propose(0, settings(-1.0))
    for one in (ledger, again(ledger)):
        trial = one.trial(0)
        assert (one.numbers(), trial.status, trial.settings) == ([0], "failed", settings(-1.0))
        assert "inner_lr" in trial.why and "\n" not in trial.why
        assert trial.curve == () and trial.best(ACCURACY) is None


def test_how_a_trial_ended_is_written_once(ledger: Ledger) -> None:
    ledger.propose(0, settings())
    assert read_outcome(ledger.run_of(0)) is None
    end_trial(ledger.run_of(0), "failed", "out of memory")
    ledger.end(0, "finished")
    end_trial(ledger.run_of(0), "stopped early", "by asha")
    for one in (ledger, again(ledger)):
        assert (one.trial(0).status, one.trial(0).why) == ("failed", "out of memory")
        assert one.trials([0])[0].status == "failed"
    outcome = unsealed_json(ledger.run_of(0).read(OUTCOME), where=OUTCOME)
    assert outcome == {"status": "failed", "why": "out of memory"}


def test_the_curve_is_the_journals(ledger: Ledger) -> None:
    experiment, run = ledger.propose(0, settings()).experiment, ledger.run_of(0)
    assert ledger.trial(0).curve == ()
    journal = Journal(run)
    journal.append([Metric("val/accuracy", value, step, 0) for step, value in ((2, 0.5), (4, math.nan), (6, 0.75))])
    journal.append([Metric("val/accuracy_half_width", 0.125, step, 0) for step in (2, 6)])
    journal.append([Metric("val/loss", 1.5, 2, 0), Metric("train/accuracy", 0.25, 2, 0)])
    journal.flush(now=True)
    curve = curve_of(run, experiment, ACCURACY)
    assert curve == ledger.trial(0).curve or repr(curve) == repr(ledger.trial(0).curve)  # NaN is not NaN
    assert (curve[0], curve[2]) == (TrialScore(2, 8, 0.5, 0.125), TrialScore(6, 24, 0.75, 0.125))
    assert curve[1][:2] == (4, 16) and math.isnan(curve[1].value) and math.isnan(curve[1].half_width)
    loss = curve_of(run, experiment, Objective("loss", highest=False))
    assert [(judged.step, judged.value) for judged in loss] == [(2, 1.5)]


def test_an_ended_trial_is_read_anew_until_it_is_tracked(ledger: Ledger) -> None:
    """MLflow may hear of it afterwards."""
    entry = ledger.propose(0, settings())
    ledger.end(0, "finished")
    assert ledger.trial(0).tracking_run is None
    Run("trial-0000", ledger.run_of(0)).begin(entry.experiment, tags={}, tracking_run="tracking-id")
    assert ledger.trial(0).tracking_run == "tracking-id" == again(ledger).trial(0).tracking_run


def test_where_a_trial_stands(ledger: Ledger) -> None:
    ledger.propose(0, settings())
    assert ledger.step_of(0) == 0
    for step in (2, 4):
        checkpoint(ledger, 0, step)
    assert ledger.step_of(0) == again(ledger).step_of(0) == 4


def test_decisions(ledger: Ledger) -> None:
    copies = [(4, Copy(replaces=1, of=3, factor=0.8)), (5, Copy(replaces=2, of=3, factor=1.25))]
    assert ledger.copies(0) is None
    ledger.decide(0, copies)
    ledger.decide(1, [])
    assert again(ledger).copies(0) == copies and again(ledger).copies(1) == [] and ledger.copies(2) is None
    assert ledger.numbers() == []


def train(experiment: Experiment, run: Storage, until: int | None = None) -> None:
    """One part, in process."""
    if until is None:
        train_part_in_process(experiment, run, Memory(), device="cpu")
        return
    with pytest.raises(RunStopped):
        train_part_in_process(experiment, run, Memory(), device="cpu", until=until)


def parameters(experiment: Experiment, run: Storage) -> dict[str, torch.Tensor]:
    state = initial_state(experiment, torch.device("cpu"))
    assert load_checkpoint(run, state).progress.step == experiment.num_steps
    moments = {
        f"{name}/{key}": value
        for name, parameter in state.meta.items()
        for key, value in state.optimizer.state[parameter].items()  # type: ignore[union-attr]
    }
    return {name: value.detach() for name, value in state.meta.items()} | moments


def test_a_copy_is_what_training_by_its_schedule_gives(
    make_waves: MakeExperiment, storage: Storage, tmp_path: Path
) -> None:
    """The property on which replay of population-based training rests: bit for bit, optimiser and journal included."""
    search = make_search(make_waves(), {INNER_LR: LR}, searcher="pbt", scheduler="none", generations=3)
    ledger = open_ledger(storage, search, {})
    donor = ledger.propose(0, {INNER_LR: {"steps": [0], "values": [0.01]}})
    train(donor.experiment, ledger.run_of(0), 2)
    train(donor.experiment, ledger.run_of(0), 4)
    values = {INNER_LR: {"steps": [0, 4], "values": [0.01, 0.05]}}
    copied = ledger.propose(1, values, Origin(0, 4))
    train(donor.experiment, ledger.run_of(0))
    assert again(ledger).entry(1) == copied and copied.origin == (0, 4) and saved_steps(ledger.run_of(1)) == [4]
    assert ledger.step_of(1) == 4 and (ledger.trial(1).episodes, ledger.trial(1).own_episodes) == (16, 0)
    train(copied.experiment, ledger.run_of(1))
    whole = Storage(str(tmp_path / "whole"))
    train(search.experiment_of(values), whole)
    found, expected = parameters(copied.experiment, ledger.run_of(1)), parameters(copied.experiment, whole)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
    other = parameters(donor.experiment, ledger.run_of(0))
    assert not all(torch.equal(found[name], other[name]) for name in found), "the schedule made no difference"

    def measured(run: Storage) -> list[tuple[str, float, int]]:
        """But for the evaluation on the step at which the rate changes, for which the donor's rate was the old one."""
        found = [(m.key, m.value, m.step) for m in read_journal(run) if "wait" not in m.key]
        return [one for one in found if not (one[0].startswith("val/") and one[2] == 4)]

    assert measured(ledger.run_of(1)) == measured(whole) != measured(ledger.run_of(0))
    assert [judged.step for judged in ledger.trial(1).curve] == [2, 4, 6]
    assert ledger.trial(1).own_episodes == 8 and ledger.trial(1).seconds > 0


def test_a_copy_is_judged_with_the_rate_of_its_best_evaluation(make_waves: MakeExperiment, storage: Storage) -> None:
    """Its best evaluation may be the one that it inherited last: with the donor's rate, not with its own first one."""
    search = make_search(make_waves(), {INNER_LR: LR}, searcher="pbt", scheduler="none", generations=3)
    ledger = open_ledger(storage, search, {})
    donor = ledger.propose(0, {INNER_LR: {"steps": [0], "values": [0.05]}})
    train(donor.experiment, ledger.run_of(0), 4)
    copied = ledger.propose(1, {INNER_LR: {"steps": [0, 4], "values": [0.05, 0.0]}}, Origin(0, 4))
    train(copied.experiment, ledger.run_of(1))
    best = ledger.trial(1).best(search.optimises)
    assert best is not None and best.step == 4
    result = train_in_process(copied.experiment, ledger.run_of(1), Memory(), device="cpu")
    assert result.best_step == 4 and result.meta_val.mean == best.value


def test_a_copy_takes_the_journal_no_further_than_it_begins(ledger: Ledger) -> None:
    ledger.propose(0, settings())
    journal = Journal(ledger.run_of(0))
    journal.append([Metric("val/accuracy", 0.1 * step, step, step) for step in (2, 4, 6)])
    journal.flush(now=True)
    for step in (4, 6):
        checkpoint(ledger, 0, step)
    for _ in range(2):  # a kill may leave it half done, so that it is done again
        ledger.propose(1, settings(0.5), Origin(0, 4))
        run = ledger.run_of(1)
        assert read_journal(run) == [Metric("val/accuracy", 0.1 * step, step, step) for step in (2, 4)]
        assert saved_steps(run) == [4] and len(run.names("metrics")) == 1
    assert json.loads(run.read(TRIAL))["origin"] == {"trial": 0, "step": 4}
    assert again(ledger).trial(1).inherited == 16 and again(ledger).trial(0).inherited == 0


def test_a_copy_of_what_is_not_there(ledger: Ledger) -> None:
    ledger.propose(0, settings())
    with pytest.raises(ValueError, match=r"manifest.json is missing"):
        ledger.propose(1, settings(0.5), Origin(0, 4))
    assert again(ledger).numbers() == [0], "it is not there before it is whole"


def test_trials_know_how_much_they_will_see(storage: Storage, make_experiment: MakeExperiment) -> None:
    search = make_search(make_experiment(), {"meta_batch_size": "choice(4, 5)"}, episodes=50)
    ledger = open_ledger(storage, search, {})
    for number, size in enumerate((4, 5)):
        ledger.propose(number, {"meta_batch_size": size})
    assert [trial.num_episodes for trial in ledger.trials()] == [48, 50]


def test_a_source_whose_data_changed(tmp_path: Path, make_waves: MakeExperiment, storage: Storage) -> None:
    """The search is described alike; what it is about is not."""
    search = make_search(make_waves())
    open_ledger(storage, search, {})
    other = make_search(replace(make_waves(), source=FunctionFamily(amplitude=(1.0, 2.0))))
    with pytest.raises(InputError, match=r"holds another search.*\n  experiment.source.amplitude"):
        open_ledger(storage, other, {})
    assert RECORD_FILE not in storage.names()


def test_a_kill_while_wrong_values_are_written_down(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the trial would train the base experiment under the settings that were refused."""
    write = Storage.write

    def killed(self: Storage, name: str, data: bytes) -> None:
        write(self, name, data)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            ledger.propose(0, settings(-1.0))
    found = again(ledger)
    assert [trial.status for trial in found.trials()] in ([], ["failed"])


def test_a_report_reads_what_it_brought_and_no_more(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the trials' journals are, and however many others run."""
    asked: list[str] = []
    for name in ("read", "names", "exists"):
        whole = getattr(Storage, name)

        def counted(self: Storage, name: str = "", _whole: Any = whole) -> Any:
            asked.append(f"{self.root}/{name}")
            return _whole(self, name)

        monkeypatch.setattr(Storage, name, counted)
    journals = {}
    for number in range(4):
        ledger.propose(number, {INNER_LR: 0.1})
        journals[number] = Journal(ledger.run_of(number))
    counts = []
    for step in range(1, 7):
        for number, journal in journals.items():
            journal.append([Metric("val/accuracy", step / 10, step, 0)])
            journal.flush(now=True)
            asked.clear()
            found = ledger.trials(list(journals), changed=number)
            assert [judged.value for judged in found[number].curve] == [at / 10 for at in range(1, step + 1)]
            counts.append(len(asked))
    assert set(counts[4:]) == {counts[-1]} and counts[-1] <= 8
    assert [len(trial.curve) for trial in ledger.trials()] == [6] * 4


def test_damage_to_a_journal_is_told_once(ledger: Ledger) -> None:
    ledger.propose(0, {INNER_LR: 0.1})
    run = ledger.run_of(0)
    journal = Journal(run)
    journal.append([Metric("val/accuracy", 0.5, 2, 0), Metric("val/accuracy", 0.75, 4, 0)])
    journal.flush(now=True)
    name = f"metrics/{run.names('metrics')[0]}"
    run.write(name, run.read(name).replace(b"0.75", b"0.95"))
    assert [judged.value for judged in ledger.trial(0).curve] == [0.5]
    assert ledger.damage() == [f"trial-0000/{name} is damaged: 1 of its 2 entries are left out"]
    assert ledger.damage() == []


def test_a_search_of_before_there_were_checksums_goes_on(ledger: Ledger, search: Search) -> None:
    ledger.propose(0, {INNER_LR: 0.1})
    ledger.end(0, "failed", "out of memory")
    ledger.decide(0, [(4, Copy(1, 0, 1.25))])
    for place, name in ((ledger.storage, SEARCH), (ledger.run_of(0), TRIAL), (ledger.run_of(0), OUTCOME)):
        place.write(name, json.dumps(unsealed_json(place.read(name), where=name)).encode())
    ledger.storage.write(
        "generation-000.json", json.dumps([{"number": 4, "copy": Copy(1, 0, 1.25)._asdict()}]).encode()
    )
    again = open_ledger(ledger.storage, search, {})
    assert again.header == ledger.header and again.entry(0) == ledger.entry(0)
    assert again.trial(0).why == "out of memory" and again.copies(0) == [(4, Copy(1, 0, 1.25))]
