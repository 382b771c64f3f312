"""One rank's run from start to result, in process."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from metaray.algorithms import MAML, ProtoNet
from metaray.algorithms.learner import load_learner
from metaray.episodes.prefetch import Arrival
from metaray.errors import RunFailed, RunStopped
from metaray.training.checkpoint import saved_steps
from metaray.training.events import Event, Listener
from metaray.training.experiment import Checkpoint, Evaluation, Experiment
from metaray.training.journal import Metric, read_journal
from metaray.training.local import train_in_process
from metaray.training.optimizer import Optimizer
from metaray.training.outer_loop import initial_state
from metaray.training.reduction import LocalReducer
from metaray.training.result import RESULT, Result, parameters_sha256
from metaray.training.session import LEARNER, Rank, run_session
from metaray.training.storage import Storage

MakeExperiment = Callable[..., Experiment]


class Memory(Listener):
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.closed = 0

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.closed += 1

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]


class StopAfter:
    """Says stop at the n-th time it is asked."""

    def __init__(self, asked: int) -> None:
        self.left = asked

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "run"))


def train(experiment: Experiment, storage: Storage, **options: Callable[[], bool]) -> tuple[Result, Memory]:
    memory = Memory()
    return train_in_process(experiment, storage, memory, device="cpu", **options), memory


def comparable(result: Result) -> Result:
    return dataclasses.replace(result, seconds=0.0, wait_share=0.0, episodes_per_s=0.0)


def undated(storage: Storage) -> list[tuple[str, float, int]]:
    """The journal without times, and without what was timed."""
    return [(m.key, m.value, m.step) for m in read_journal(storage) if "wait" not in m.key]


def test_the_result_has_everything(storage: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment()
    result, memory = train(experiment, storage)
    assert (result.num_steps, result.protocol) == (6, experiment.protocol)
    assert result.best_step in (2, 4, 6)
    assert result.meta_val.episodes == len(result.meta_val_scores) == 6
    assert result.meta_val.mean == pytest.approx(sum(result.meta_val_scores) / 6)
    assert result.before_adaptation is not None
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
    "algorithm", [MAML(inner_lr=0.1, inner_steps=2), ProtoNet(batch_norm="inductive")], ids=["maml", "protonet"]
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


def test_a_run_that_is_stopped_at_every_step(storage: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(num_steps=4)
    expected, _ = train(experiment, Storage(f"{storage.root}-undisturbed"))
    for _ in range(3):
        with pytest.raises(RunStopped):
            train(experiment, storage, should_stop=lambda: True)
    # The last step is done: there is nothing to come back for, and the run concludes.
    found, _ = train(experiment, storage, should_stop=lambda: True)
    assert comparable(found) == comparable(expected)


def test_a_finished_run_concludes_again_without_a_step(storage: Storage, make_experiment: MakeExperiment) -> None:
    first, _ = train(make_experiment(), storage)
    again, memory = train(make_experiment(), storage)
    assert memory.of("step") == [] and comparable(again) == comparable(first)


def test_a_damaged_checkpoint_costs_steps_and_no_bits(storage: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(checkpoint=Checkpoint(every=1))
    expected, _ = train(experiment, Storage(f"{storage.root}-undisturbed"))
    with pytest.raises(RunStopped):
        train(experiment, storage, should_stop=StopAfter(5))
    newest = Path(storage.root) / "checkpoints" / "step-000000005" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    found, memory = train(experiment, storage)
    assert [event.step for event in memory.of("step")] == [5, 6]
    assert comparable(found) == comparable(expected)


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
    rank = Rank(storage, Second(), torch.device("cpu"), memory, stream)
    assert not rank.is_chief
    result = run_session(make_experiment(num_steps=0), rank)
    assert result.num_steps == 0 and memory.events == [] and storage.names() == []


def test_it_learns_something(storage: Storage, make_experiment: MakeExperiment) -> None:
    plan = Evaluation(every=0, val_episodes=20, test_episodes=60)
    result, _ = train(make_experiment(algorithm=ProtoNet(), num_steps=60, evaluation=plan), storage)
    assert result.meta_test.low > result.before_training.mean and result.meta_test.mean > 0.5
