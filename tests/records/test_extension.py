"""A finished run made one that goes on: the same as if all steps had been asked for at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaray.config import replace
from metaray.errors import InputError, RunFailed, RunStopped
from metaray.experiment.experiment import Evaluation, Experiment, Initial
from metaray.optimizers import Adam, Group
from metaray.optimizers.schedules import Cosine
from metaray.records.execution import Executed, read_executed, write_executed
from metaray.records.extension import (
    START_FOLDER,
    begin_record,
    ended_folder,
    extend_record,
    first_other_rate,
    forget_record,
    require_end,
    restore_end,
)
from metaray.records.judged import JUDGED
from metaray.records.result import RESULT
from metaray.records.run import LEARNER, RECORD_FILE, Run
from metaray.records.storage import Storage
from tests.training.whole_runs import StopAfter, comparable, damage, path, train

MakeExperiment = Callable[..., Experiment]


@pytest.fixture
def root(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def finished(root: Storage, experiment: Experiment, name: str = "x") -> Run:
    """A run that is trained to its end."""
    Run.of(root, experiment, name).begin(experiment, tags={"a": "b"}, tracking_run="id")
    train(experiment, root.child(name))
    return Run.of(root, experiment, name)


def extended(root: Storage, folder: Run, experiment: Experiment, step: int) -> Run:
    """The run, with more steps before it."""
    extend_record(folder, experiment, step, {"c": "d"})
    return Run.of(root, experiment, folder.name)


class Spliced(Cosine):
    """The rates of a run of 6 steps, and then those of a longer one."""

    def rate(self, outer_lr: float, step: int, num_steps: int, first: int) -> float:
        """See `Schedule.rate`."""
        return super().rate(outer_lr, step, 6 if step < 6 else num_steps, first)


def starting(folder: Run, experiment: Experiment, num_steps: int) -> Experiment:
    """The experiment with more steps, from the end of a run of it."""
    sha256 = folder.result.parameters_sha256
    initial = Initial(run=folder.name, step=experiment.num_steps, parameters_sha256=sha256)
    return replace(experiment, num_steps=num_steps, initial=initial)


def begun(root: Storage, folder: Run, experiment: Experiment, name: str = "new") -> Storage:
    """The storage of a new run that starts from the end of another one."""
    begin_record(Run(name, root.child(name)), experiment, folder.storage, folder.record.source_fingerprint, {"c": "d"})
    return root.child(name)


def files(storage: Storage, below: str = "") -> dict[str, bytes]:
    folder = storage.local_folder / below
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("every", "done", "best"),
    [
        pytest.param(3, 6, 3, id="the last step is judged anyway, and not the best"),
        pytest.param(5, 5, 5, id="the last step is judged anyway, and the best"),
        pytest.param(4, 6, 6, id="the best at the end, which a longer run does not judge"),
        pytest.param(0, 5, 5, id="judged at the end alone"),
        pytest.param(6, 5, 5, id="ended before it was ever judged"),
        pytest.param(2, 0, 0, id="nothing done at all"),
    ],
)
def test_it_becomes_the_run_that_all_steps_at_once_would_have_been(
    every: int, done: int, best: int, root: Storage, make_experiment: MakeExperiment
) -> None:
    plan = {
        "evaluation": Evaluation(every=every, val_episodes=4, test_episodes=2),
        "seed": 4,
    }
    short, whole = make_experiment(num_steps=done, **plan), make_experiment(num_steps=done + 4, **plan)
    folder = finished(root, short)
    assert folder.result.best_step == best
    folder = extended(root, folder, whole, done)
    assert (folder.is_finished, folder.tracking_run, folder.record.tags) == (False, None, {"c": "d"})
    result, memory = train(whole, folder.storage)
    assert not done or f"going on from the checkpoint of step {done}" in memory.notes()
    at_once, _ = train(whole, root.child("y"))
    assert comparable(result) == comparable(at_once)
    assert files(folder.storage, LEARNER) == files(root.child("y"), LEARNER)


def test_nothing_of_its_end_is_lost(root: Storage, make_experiment: MakeExperiment) -> None:
    folder = finished(root, make_experiment())
    before = files(folder.storage)
    extended(root, folder, make_experiment(num_steps=8), 6)
    assert files(folder.storage, ended_folder(6)) == {
        name: data for name, data in before.items() if name in (RESULT, JUDGED, RECORD_FILE) or name.startswith(LEARNER)
    }


@pytest.mark.parametrize("every", [2, 0, 4])
def test_restored_it_is_as_it_was(every: int, root: Storage, make_experiment: MakeExperiment) -> None:
    plan = {"evaluation": Evaluation(every=every, val_episodes=4, test_episodes=2), "seed": 4}
    folder = finished(root, make_experiment(**plan))
    before = files(folder.storage)
    for _ in range(2):
        extended(root, folder, make_experiment(num_steps=8, **plan), 6)
        restore_end(folder, 6)
        assert {name: data for name, data in files(folder.storage).items() if not name.startswith("ended")} == before


@pytest.mark.parametrize("name", [RECORD_FILE, "checkpoints/step-000000005/progress.json"])
def test_killed_at_any_place_the_command_does_the_rest(
    name: str, root: Storage, make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {"evaluation": Evaluation(every=0, val_episodes=4, test_episodes=2)}
    short, whole = make_experiment(num_steps=5, **plan), make_experiment(num_steps=9, **plan)
    folder = finished(root, short)
    write = Storage.write

    def killed(self: Storage, file: str, data: bytes) -> None:
        if file == name:
            raise KeyboardInterrupt
        write(self, file, data)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Storage, "write", killed)
        extended(root, folder, whole, 5)
    assert Run.of(root, short, "x").result == folder.result
    require_end(folder, 5)
    result, _ = train(whole, extended(root, Run.of(root, short, "x"), whole, 5).storage)
    assert comparable(result) == comparable(train(whole, root.child("y"))[0])


def test_killed_before_the_result_was_put_aside(root: Storage, make_experiment: MakeExperiment) -> None:
    """The record says 8 steps, and the result of 6 lies there still: it is not that of the run."""
    folder = finished(root, make_experiment())
    result = folder.storage.read(RESULT)
    extended(root, folder, make_experiment(num_steps=8), 6)
    folder.storage.write(RESULT, result)
    assert Run.of(root, make_experiment(num_steps=8), "x").is_finished is False


def test_the_best_of_before_the_end_must_be_there(root: Storage, make_experiment: MakeExperiment) -> None:
    plan = {"evaluation": Evaluation(every=4, val_episodes=4, test_episodes=2), "seed": 4}
    folder = finished(root, make_experiment(**plan))
    before = files(folder.storage)
    damage(folder.storage, 4)
    with pytest.raises(InputError, match=r"best learner is that of step 6.*the checkpoint of step 4.* is not whole"):
        extended(root, folder, make_experiment(num_steps=8, **plan), 6)
    now = files(folder.storage)
    assert (now[RECORD_FILE], now[RESULT]) == (before[RECORD_FILE], before[RESULT])
    path(folder.storage, 6, "state.safetensors").unlink()
    with pytest.raises(InputError, match=r"'z' cannot be extended: the checkpoint of step 6.*: manifest.json is miss"):
        require_end(finished(root, make_experiment(num_steps=2), "z"), 6)


@pytest.mark.parametrize(
    ("optimizer", "other"),
    [
        ({}, None),
        ({"warmup_steps": 3}, None),
        ({"schedule": "step", "decay_every": 2}, None),
        ({"schedule": "cosine", "final_lr_fraction": 1.0}, None),
        ({"schedule": "cosine"}, 1),
        ({"schedule": "linear", "warmup_steps": 3}, 4),
        ({"schedule": "cosine", "warmup_steps": 6}, None),  # the run ends as the warm-up does
        ({"groups": {"*": Group(outer_lr=0.5)}, "schedule": "linear"}, 1),
    ],
)
def test_whether_rates_depend_on_the_number_of_steps(
    optimizer: dict[str, Any], other: int | None, make_experiment: MakeExperiment
) -> None:
    experiment = make_experiment(optimizer=Adam(**optimizer))
    found = first_other_rate(experiment, 9)
    assert (None if found is None else found[0]) == other
    if found is not None:
        step, now, then = found
        assert now == experiment.optimizer.lr_at(step, 6) != then == experiment.optimizer.lr_at(step, 9)


def test_an_algorithm_whose_loss_anneals_goes_by_the_step_alone(root: Storage, make_experiment: MakeExperiment) -> None:
    plan: dict[str, Any] = {
        "algorithm": {"kind": "mamlpp", "inner_lr": 0.1, "inner_steps": 2, "msl_steps": 7, "first_order_steps": 4},
        "evaluation": Evaluation(every=0, val_episodes=2, test_episodes=2),
    }
    short, whole = make_experiment(num_steps=3, **plan), make_experiment(num_steps=8, **plan)
    result, _ = train(whole, extended(root, finished(root, short), whole, 3).storage)
    assert comparable(result) == comparable(train(whole, root.child("y"))[0])


def test_a_new_run_goes_on_with_parameters_optimizer_and_episodes(
    root: Storage, make_experiment: MakeExperiment
) -> None:
    short = make_experiment(optimizer=Adam(outer_lr=1e-2, schedule="cosine"))
    folder = finished(root, short)
    before = files(folder.storage)
    longer = starting(folder, short, 11)
    result, memory = train(longer, begun(root, folder, longer))
    rates = [(event.values["step"], event.values["outer_lr"]) for event in memory.of("step")]
    assert rates == [(step, short.optimizer.lr_at(step, 11)) for step in range(6, 11)]
    # As one run would, whose rates are first those of the shorter and then those of the longer.
    spliced = replace(short, num_steps=11, optimizer=Adam(outer_lr=1e-2, schedule=Spliced()))
    at_once, _ = train(spliced, root.child("spliced"))
    assert result.parameters_sha256 == at_once.parameters_sha256
    assert result.best_step in (8, 10, 11)  # of its own judgements
    assert files(folder.storage) == before
    found = Run.find(root, "new")
    assert found.experiment() == longer != replace(longer, initial=None) and found.record.tags == {"c": "d"}


def test_a_new_run_that_is_killed_comes_to_the_same(root: Storage, make_experiment: MakeExperiment) -> None:
    short = make_experiment(optimizer=Adam(outer_lr=1e-2, schedule="linear"))
    folder = finished(root, short)
    longer = starting(folder, short, 12)
    undisturbed, _ = train(longer, begun(root, folder, longer))
    storage = begun(root, folder, longer, "killed")
    with pytest.raises(RunStopped):
        train(longer, storage, should_stop=StopAfter(3))
    assert comparable(train(longer, begun(root, folder, longer, "killed"))[0]) == comparable(undisturbed)
    # Without any checkpoint it does not start from step 0, but from what it began with.
    storage.delete_folder("checkpoints")
    with pytest.raises(RunFailed, match=r"starts from step 6 of run 'x', but has no whole.*--run x --extend 6` brings"):
        train(longer, storage)
    for saved in folder.storage.names("checkpoints"):
        folder.storage.delete_folder(f"checkpoints/{saved}")
    assert comparable(train(longer, begun(root, folder, longer, "killed"))[0]) == comparable(undisturbed)


@pytest.mark.parametrize(
    "name", [RECORD_FILE, f"{START_FOLDER}/manifest.json", "checkpoints/step-000000006/progress.json"]
)
def test_a_new_run_whose_beginning_is_broken_off(
    name: str, root: Storage, make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = make_experiment(optimizer=Adam(schedule="linear"))
    folder = finished(root, short)
    longer = starting(folder, short, 8)
    write = Storage.write

    def killed(self: Storage, file: str, data: bytes) -> None:
        if file == name:
            raise KeyboardInterrupt
        write(self, file, data)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Storage, "write", killed)
        begun(root, folder, longer)
    assert root.child("new").exists(RECORD_FILE) or not files(root.child("new"))
    assert train(longer, begun(root, folder, longer))[0].num_steps == 8
    forget_record(Run("new", root.child("new")))
    assert not root.child("new").exists(RECORD_FILE) and not root.child("new").names("checkpoints")


@pytest.mark.parametrize(("asked", "is_kept"), [("auto", True), ("compiled", False)])
def test_a_new_run_is_computed_as_the_other_was(
    asked: str, is_kept: bool, root: Storage, make_experiment: MakeExperiment
) -> None:
    """Unless it asks for something else."""
    short = make_experiment(optimizer=Adam(schedule="linear"))
    folder, fallen = finished(root, short), Executed(kind="batched", why="there was no compiler")
    write_executed(folder.storage, fallen)
    storage = begun(root, folder, replace(starting(folder, short, 8), execution=asked))
    assert read_executed(storage) == (fallen if is_kept else None)
    forget_record(Run("new", storage))
    assert read_executed(storage) is None


def test_only_an_extension_makes_a_run_that_starts_from_another(root: Storage, make_experiment: MakeExperiment) -> None:
    experiment = starting(finished(root, make_experiment()), make_experiment(), 8)
    with pytest.raises(InputError, match=r"starts from step 6 of run 'x'; make .*`metaray train RECIPE --run x --ext"):
        Run.of(root, experiment, "new")
