"""One rank's run from start to result, in process."""

import contextlib
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from metaray.algorithms import MAML, ProtoNet
from metaray.data import ClassStore
from metaray.data.store_file import read_store, write_store
from metaray.episodes.prefetch import Arrival
from metaray.errors import InputError, RunFailed, RunStopped
from metaray.experiment.experiment import Checkpoint, Evaluation, Experiment
from metaray.experiment.optimizer import Optimizer
from metaray.learners.loading import load_learner
from metaray.manifest import sealed
from metaray.records.checkpoint import load_checkpoint
from metaray.records.checkpoint_files import CHECKPOINTS_FOLDER, checkpoint_name, saved_steps
from metaray.records.environment import environment
from metaray.records.journal import Metric, read_journal
from metaray.records.result import RESULT, Result, parameters_sha256
from metaray.records.run import LEARNER
from metaray.records.storage import Storage
from metaray.training import milestones, session
from metaray.training.outer_loop import initial_state
from metaray.training.reduction import LocalReducer
from metaray.training.session import RankSetup
from tests.training.whole_runs import (
    AtStep,
    Memory,
    StopAfter,
    comparable,
    damage,
    path,
    train,
    train_in_process,
    undated,
)

MakeExperiment = Callable[..., Experiment]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "run"))


def test_the_result_has_everything(storage: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment()
    result, memory = train(experiment, storage)
    assert (result.num_steps, result.protocol) == (6, experiment.protocol)
    assert result.best_step in (2, 4, 6)
    assert result.meta_val.episodes == len(result.meta_val_scores) == 6
    assert result.meta_val.mean == pytest.approx(sum(result.meta_val_scores) / 6)
    assert result.before_adaptation is not None and result.nearest_neighbor is not None
    judged = (result.meta_test, result.before_adaptation, result.before_training, result.nearest_neighbor)
    assert all(e.episodes == 8 and 0 <= e.mean <= 1 and math.isfinite(e.half_width) for e in judged)
    assert result.seconds > 0 and 0 <= result.wait_share <= 1 and result.episodes_per_s > 0
    assert len(result.parameters_sha256) == 64
    assert Result.from_json(storage.read(RESULT).decode()) == result
    assert memory.closed == 1


def test_the_learner_is_the_best_on_meta_val(storage: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment()
    result, memory = train(experiment, storage)
    learner = load_learner(Path(storage.root) / LEARNER)
    assert learner.algorithm == experiment.algorithm and learner.spec == experiment.eval_spec
    assert learner.provenance["best_step"] == result.best_step
    assert Experiment.parse(learner.provenance["experiment"], where="provenance") == experiment
    accuracies = {event.step: event.values["val/accuracy"] for event in memory.of("evaluation")}
    assert accuracies[result.best_step] == max(accuracies.values()) == result.meta_val.mean
    # The first of several that are as good.
    assert result.best_step == min(step for step, a in accuracies.items() if a == max(accuracies.values()))
    if result.best_step == 6:
        assert parameters_sha256(learner.meta) == result.parameters_sha256


def test_events_and_journal(storage: Storage, make_experiment: MakeExperiment) -> None:
    _, memory = train(make_experiment(), storage)
    assert [event.step for event in memory.of("step")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in memory.of("evaluation")] == [2, 4, 6]
    assert [event.text for event in memory.of("phase")] == ["training", "meta-test"]
    journal = read_journal(storage)
    assert all(isinstance(m, Metric) and math.isfinite(m.value) for m in journal)
    assert [m.step for m in journal if m.key == "train/loss"] == [1, 2, 3, 4, 5, 6]
    assert [m.step for m in journal if m.key == "val/accuracy"] == [2, 4, 6]
    told = {(key, event.step): value for event in memory.of("metrics") for key, value in event.values.items()}
    assert told == {(m.key, m.step): m.value for m in journal}
    for event in memory.events:
        assert all(type(value) in (int, float, bool) for value in event.values.values())


@pytest.mark.parametrize(
    "algorithm", [MAML(inner_lr=0.1, inner_steps=2, batch_norm="transductive"), ProtoNet()], ids=["maml", "protonet"]
)
@pytest.mark.parametrize("asked", [1, 3, 4])
def test_a_stopped_run_goes_on_to_the_same_bits(
    algorithm: MAML | ProtoNet, asked: int, storage: Storage, make_experiment: MakeExperiment
) -> None:
    experiment = make_experiment(algorithm=algorithm)
    undisturbed = Storage(f"{storage.root}-undisturbed")
    expected, _ = train(experiment, undisturbed)
    memory = Memory()
    with pytest.raises(RunStopped, match=f"stopped by a signal after step {asked - 1}; a checkpoint holds it"):
        train_in_process(experiment, storage, memory, device="cpu", should_stop=StopAfter(asked))
    assert saved_steps(storage)[-1] == asked and memory.closed == 1
    assert not storage.exists(RESULT)
    found, later = train(experiment, storage)
    assert [event.step for event in later.of("step")] == list(range(asked + 1, 7))
    assert comparable(found) == comparable(expected)
    assert undated(storage) == undated(undisturbed)


@pytest.mark.parametrize("points", [500, 2], ids=["each step recorded", "means over three steps"])
def test_a_run_that_is_stopped_at_every_step(
    points: int, storage: Storage, make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milestones, "POINTS_A_CURVE", points)
    experiment = make_experiment(evaluation=Evaluation(every=4, val_episodes=6, test_episodes=8))
    undisturbed = Storage(f"{storage.root}-undisturbed")
    expected, _ = train(experiment, undisturbed)
    for _ in range(5):
        with pytest.raises(RunStopped):
            train(experiment, storage, should_stop=lambda: True)
    # The last step is done: there is nothing to come back for, and the run concludes.
    found, _ = train(experiment, storage, should_stop=lambda: True)
    assert comparable(found) == comparable(expected)
    assert undated(storage) == undated(undisturbed)
    recorded = [m.step for m in read_journal(storage) if m.key == "train/loss"]
    assert recorded == ([1, 2, 3, 4, 5, 6] if points == 500 else [3, 4, 6])
    keys = {(m.key, m.step) for m in read_journal(storage)}
    assert keys == {(m.key, m.step) for m in read_journal(undisturbed)}


def test_times_add_up_over_stops(storage: Storage, make_experiment: MakeExperiment) -> None:
    seconds = []
    for asked in (2, 2, 9):
        with contextlib.suppress(RunStopped):
            train(make_experiment(), storage, should_stop=StopAfter(asked))
        clock = json.loads(path(storage, saved_steps(storage)[-1], "progress.json").read_text())["clock"]
        seconds.append(clock["seconds"])
        assert clock["steps"] == saved_steps(storage)[-1]
        assert 0 <= clock["wait_s"] <= clock["duration_s"] <= clock["seconds"]
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    assert Result.from_json(storage.read(RESULT).decode()).seconds >= seconds[2]


class Killed(BaseException):
    """As good as SIGKILL: nobody catches it."""


def kill() -> None:
    raise Killed


@pytest.mark.parametrize("at", [1, 2, 5])
def test_a_killed_run_leaves_no_trace_either(
    at: int, storage: Storage, make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps are done again, their metrics are there once."""
    monkeypatch.setattr(milestones, "POINTS_A_CURVE", 2)
    experiment = make_experiment(
        checkpoint=Checkpoint(every=2), evaluation=Evaluation(every=0, val_episodes=6, test_episodes=8)
    )
    undisturbed = Storage(f"{storage.root}-undisturbed")
    expected, _ = train(experiment, undisturbed)
    for _ in range(2):
        with pytest.raises(Killed):
            train_in_process(experiment, storage, AtStep(**{f"step_{at}": kill}), device="cpu")
    found, memory = train(experiment, storage)
    assert comparable(found) == comparable(expected) and undated(storage) == undated(undisturbed)
    assert memory.of("step")[0].step == at - (at + 1) % 2


def test_a_finished_run_concludes_again_without_a_step(storage: Storage, make_experiment: MakeExperiment) -> None:
    first, _ = train(make_experiment(), storage)
    again, memory = train(make_experiment(), storage)
    assert memory.of("step") == [] and comparable(again) == comparable(first)


def test_a_damaged_checkpoint_costs_steps_and_no_bits(storage: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(checkpoint=Checkpoint(every=1))
    undisturbed = Storage(f"{storage.root}-undisturbed")
    expected, _ = train(experiment, undisturbed)
    with pytest.raises(RunStopped):
        train(experiment, storage, should_stop=StopAfter(5))
    damage(storage, 5)
    found, memory = train(experiment, storage)
    assert [event.step for event in memory.of("step")] == [5, 6]
    assert comparable(found) == comparable(expected) and undated(storage) == undated(undisturbed)
    notes = memory.notes()
    assert "the checkpoint of step 5 is damaged (state.safetensors has " in notes
    assert "going on from the checkpoint of step 4" in notes


def test_without_a_whole_checkpoint_it_starts_again(storage: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(checkpoint=Checkpoint(every=1))
    undisturbed = Storage(f"{storage.root}-undisturbed")
    expected, _ = train(experiment, undisturbed)
    with pytest.raises(RunStopped):
        train(experiment, storage, should_stop=StopAfter(5))
    for step in saved_steps(storage):
        damage(storage, step)
    found, memory = train(experiment, storage)
    assert [event.step for event in memory.of("step")] == [1, 2, 3, 4, 5, 6]
    assert comparable(found) == comparable(expected) and undated(storage) == undated(undisturbed)
    assert "no checkpoint is whole: starting from step 0, which leads to the same parameters" in memory.notes()


def test_the_newest_checkpoint_is_enough(storage: Storage, make_experiment: MakeExperiment) -> None:
    """The best meta-parameters are older, and in it."""
    experiment = make_experiment(checkpoint=Checkpoint(every=1), num_steps=7)
    expected, _ = train(experiment, Storage(f"{storage.root}-undisturbed"))
    assert expected.best_step < 7
    with pytest.raises(RunStopped):
        train(experiment, storage, should_stop=StopAfter(6))
    for step in saved_steps(storage)[:-1]:
        shutil.rmtree(path(storage, step))
    found, memory = train(experiment, storage)
    assert [event.step for event in memory.of("step")] == [7] and comparable(found) == comparable(expected)


def test_another_environment_is_told(storage: Storage, make_experiment: MakeExperiment) -> None:
    with pytest.raises(RunStopped):
        train(make_experiment(), storage, should_stop=StopAfter(3))
    progress = json.loads(path(storage, 3, "progress.json").read_text())
    progress["environment"].update(torch="1.0", cpu_capability="AVX9")
    files = {"state.safetensors": path(storage, 3, "state.safetensors").read_bytes()}
    files = sealed({**files, "progress.json": json.dumps(progress).encode()})
    storage.write_folder(f"{CHECKPOINTS_FOLDER}/{checkpoint_name(3)}", files)
    _, memory = train(make_experiment(), storage)
    own = environment()
    changes = f"torch 1.0 -> {own['torch']}, cpu_capability AVX9 -> {own['cpu_capability']}"
    assert f"other software, settings or kind of processor than before ({changes}): bits may differ" in memory.notes()


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "MKL_CBWR"])
def test_other_kernels_than_before_are_told(
    name: str, storage: Storage, make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(name, raising=False)
    with pytest.raises(RunStopped):
        train(make_experiment(), storage, should_stop=StopAfter(3))
    monkeypatch.setenv(name, "AVX2")
    _, memory = train(make_experiment(), storage)
    assert f"than before ({name} (unset) -> AVX2): bits may differ" in memory.notes()


def test_a_checkpoint_of_before_kernels_were_noted_is_no_alarm(
    storage: Storage, make_experiment: MakeExperiment
) -> None:
    with pytest.raises(RunStopped):
        train(make_experiment(), storage, should_stop=StopAfter(3))
    progress = json.loads(path(storage, 3, "progress.json").read_text())
    old = ("torch", "numpy", "python", "device", "cpu_capability", "cpu")
    progress["environment"] = {key: progress["environment"][key] for key in old}
    files = {"state.safetensors": path(storage, 3, "state.safetensors").read_bytes()}
    files = sealed({**files, "progress.json": json.dumps(progress).encode()})
    storage.write_folder(f"{CHECKPOINTS_FOLDER}/{checkpoint_name(3)}", files)
    _, memory = train(make_experiment(), storage)
    assert "differ" not in memory.notes()


def test_data_replaced_while_they_are_in_use_end_the_run(
    storage: Storage, make_experiment: MakeExperiment, tiny_store: Path, tmp_path: Path
) -> None:
    """No checkpoint and no result holds a step on the other data."""
    copy, other = tmp_path / "copy.arrow", tmp_path / "other.arrow"
    copy.write_bytes(tiny_store.read_bytes())
    found = read_store(copy)
    images = found.examples.copy()
    images[3] ^= 1
    about: dict[str, Any] = {
        "counts": found.meta.counts,
        "class_names": found.meta.class_names,
        "schemes": found.meta.schemes,
    }
    write_store(other, examples=images, preprocessing=found.meta.preprocessing, origin={}, **about)
    experiment = make_experiment(source=ClassStore(path=str(copy)), checkpoint=Checkpoint(every=1), num_steps=40)

    def replace_data() -> bool:
        if other.exists() and saved_steps(storage):
            other.replace(copy)
        return False

    with pytest.raises(InputError, match=r"the data changed while they were in use: .* and the same --run goes on"):
        train(experiment, storage, should_stop=replace_data)
    assert not storage.exists(RESULT) and saved_steps(storage)[-1] < 40


def test_the_same_environment_is_not_worth_a_word(storage: Storage, make_experiment: MakeExperiment) -> None:
    with pytest.raises(RunStopped):
        train(make_experiment(), storage, should_stop=StopAfter(3))
    _, memory = train(make_experiment(), storage)
    assert "differ" not in memory.notes() and "damaged" not in memory.notes()


class Started(Exception):
    """Ends a run where its first step would begin, from the step in its argument."""


class TwoRanks(LocalReducer):
    """The first of two ranks, which share steps and the like through `sum_`. What the other says is made up.

    Args:
        steps: the other's, one for each time that the ranks compare theirs.
        same: whether its environment is, of which they speak second.
    """

    rank, world_size = 0, 2

    def __init__(self, *steps: int, same: bool = True) -> None:
        self.steps, self.same = list(steps), same
        self.said: list[int] = []

    def sum_(self, buffer: torch.Tensor) -> torch.Tensor:
        mine, theirs = buffer.tolist()
        assert theirs == 0.0 and buffer.dtype == torch.float64, "each rank fills in its own"
        self.said.append(int(mine))
        buffer[1] = self.steps.pop(0) if self.steps else mine + (not self.same and len(self.said) == 2)
        return buffer


def begin(experiment: Experiment, storage: Storage, reducer: TwoRanks) -> None:
    """Start a rank, up to its first step."""

    def stream(start: int) -> Iterator[Arrival]:
        raise Started(start)

    session.Session(experiment, RankSetup(storage, reducer, torch.device("cpu"), Memory(), stream)).run()


@pytest.fixture
def frequent(make_experiment: MakeExperiment) -> Experiment:
    """A checkpoint at each step."""
    return make_experiment(checkpoint=Checkpoint(every=1))


@pytest.fixture
def until_3(frequent: Experiment, storage: Storage) -> Storage:
    """With the checkpoints of steps 2 and 3."""
    with pytest.raises(RunStopped):
        train(frequent, storage, should_stop=StopAfter(3))
    assert saved_steps(storage) == [2, 3]
    return storage


@pytest.mark.parametrize(
    ("others", "start"),
    [
        ([3], 3),  # both see the newest
        ([2, 2], 2),  # the other could not read it
        ([5, 3], 3),  # the other saw a newer one
    ],
)
def test_ranks_go_on_from_the_newest_checkpoint_that_all_have(
    others: list[int], start: int, until_3: Storage, frequent: Experiment
) -> None:
    reducer, memory = TwoRanks(*others), Memory()
    rank = RankSetup(until_3, reducer, torch.device("cpu"), memory, lambda start: iter(()))
    begun = session.Session(frequent, rank)
    expected = initial_state(frequent, torch.device("cpu"))
    progress, best, _ = load_checkpoint(until_3, expected, at_most=start)
    assert (begun.state.step, begun.progress, expected.step) == (start, progress, start)
    assert parameters_sha256(begun.state.meta) == parameters_sha256(expected.meta)
    assert parameters_sha256(begun.best) == parameters_sha256(best)
    assert reducer.said[: len(others)] == [3, start][: len(others)] and reducer.steps == []
    assert f"going on from the checkpoint of step {start}" in memory.notes()
    assert saved_steps(until_3) == [2, 3]
    with pytest.raises(Started, match=f"^{start}$"):
        begin(frequent, until_3, TwoRanks(*others))


@pytest.mark.parametrize(
    ("others", "shown"),
    [
        ([0], "[3, 0]"),  # the other sees none: what it computes would be from the start
        ([1, 1], "[3, 1]"),  # here it is gone
        ([2, 0], "[2, 0]"),  # the other lost it meanwhile
    ],
)
def test_ranks_that_cannot_agree_fail(others: list[int], shown: str, until_3: Storage, frequent: Experiment) -> None:
    with pytest.raises(RunFailed, match=re.escape(f"start from different checkpoints (steps {shown} by rank): ")):
        begin(frequent, until_3, TwoRanks(*others))
    assert saved_steps(until_3) == [2, 3]


def test_what_is_damaged_is_known_also_where_ranks_agree_on_an_older_one(
    storage: Storage, frequent: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the writer would take it for a whole one, and keep it in the place of one that is."""
    with monkeypatch.context() as patch, pytest.raises(RunStopped):
        patch.setattr("metaray.training.run_writer.keep_checkpoints", lambda storage, keep: None)
        train(frequent, storage, should_stop=StopAfter(4))
    damage(storage, 4)
    memory = Memory()
    rank = RankSetup(storage, TwoRanks(2, 2), torch.device("cpu"), memory, lambda start: iter(()))
    begun = session.Session(frequent, rank)
    assert saved_steps(storage) == [1, 2, 3, 4] and begun.state.step == 2
    assert list(begun.damaged) == [4] and "the checkpoint of step 4 is damaged" in memory.notes()


def test_ranks_that_see_different_storages_are_found_out(storage: Storage, make_experiment: MakeExperiment) -> None:
    with pytest.raises(RunFailed, match=r"start from different checkpoints \(steps \[0, 4\] by rank\): .*--storage"):
        begin(make_experiment(), storage, TwoRanks(4))


@pytest.mark.parametrize("same", [True, False])
def test_ranks_that_differ_in_software_are_told_of(same: bool, storage: Storage, frequent: Experiment) -> None:
    memory, reducer = Memory(), TwoRanks(0, same=same)
    session.Session(frequent, RankSetup(storage, reducer, torch.device("cpu"), memory, lambda start: iter(())))
    assert len(reducer.said) == 4 and 0 < reducer.said[1] < 2**53 - 1
    told = "the workers differ in software, settings or kind of processor: bits may differ from other runs'"
    assert (told in memory.notes()) is not same


def test_checkpoints_keep_the_newest_the_one_before_and_the_best(
    storage: Storage, make_experiment: MakeExperiment
) -> None:
    result, _ = train(make_experiment(checkpoint=Checkpoint(every=1)), storage)
    assert saved_steps(storage) == sorted({5, 6, result.best_step})


def test_no_steps_at_all(storage: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(num_steps=0)
    result, memory = train(experiment, storage)
    assert (result.num_steps, result.best_step) == (0, 0) and memory.of("step") == []
    assert result.parameters_sha256 == parameters_sha256(initial_state(experiment, torch.device("cpu")).meta)
    assert result.meta_test == result.before_training


def test_meta_val_at_the_end_alone(storage: Storage, make_experiment: MakeExperiment) -> None:
    plan = Evaluation(every=0, val_episodes=4, test_episodes=4)
    result, memory = train(make_experiment(evaluation=plan), storage)
    assert [event.step for event in memory.of("evaluation")] == [6] and result.best_step == 6


def test_a_failed_run_keeps_its_checkpoints_and_says_why(storage: Storage, make_experiment: MakeExperiment) -> None:
    optimizer = Optimizer(kind="sgd", outer_lr=1e38)
    experiment = make_experiment(optimizer=optimizer, checkpoint=Checkpoint(every=1))
    memory = Memory()
    with pytest.raises(RunFailed, match="stopped at step 1: the loss is not finite in episode 4"):
        train_in_process(experiment, storage, memory, device="cpu")
    assert saved_steps(storage) == [1] and memory.closed == 1 and not storage.exists(RESULT)


def test_only_the_chief_writes_and_speaks(storage: Storage, make_experiment: MakeExperiment) -> None:
    class Second(LocalReducer):
        rank, world_size = 1, 2

    def stream(start: int) -> Iterator[Arrival]:
        return iter(())

    memory = Memory()
    rank = RankSetup(storage, Second(), torch.device("cpu"), memory, stream)
    assert not rank.is_chief
    session.Session(make_experiment(num_steps=0), rank).run()
    assert memory.events == [] and storage.names() == []


def test_all_ranks_learn_that_rank_0_could_not_save(storage: Storage, make_experiment: MakeExperiment) -> None:
    class Second(LocalReducer):
        rank, world_size = 1, 2

        def sum_(self, buffer: torch.Tensor) -> torch.Tensor:
            return buffer.fill_(1.0) if buffer.numel() == 1 else buffer

    rank = RankSetup(storage, Second(), torch.device("cpu"), Memory(), lambda start: iter(()))
    with pytest.raises(RunFailed, match="rank 0 could not write a checkpoint"):
        session.Session(make_experiment(num_steps=0), rank).run()


def test_it_learns_something(storage: Storage, make_experiment: MakeExperiment) -> None:
    plan = Evaluation(every=0, val_episodes=20, test_episodes=60)
    result, _ = train(make_experiment(algorithm=ProtoNet(), num_steps=60, evaluation=plan), storage)
    assert result.meta_test.low > result.before_training.mean and result.meta_test.mean > 0.5
