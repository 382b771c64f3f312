"""The host may lag behind the steps: no bit, no decision and no promise depends on it."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from metaray.algorithms import MAML, ProtoNet
from metaray.errors import Diverged, RunStopped
from metaray.experiment.experiment import Checkpoint, Evaluation, Experiment
from metaray.experiment.optimizer import Optimizer
from metaray.optimizers import CustomOptimizer
from metaray.optimizers.stepping import clip_, global_norm
from metaray.records.checkpoint_files import saved_steps
from metaray.records.events import Event
from metaray.records.storage import Storage
from metaray.training import outer_loop as its
from metaray.training.outer_loop import Step, initial_state, outer_loop
from metaray.training.reduction import LocalReducer
from metaray.training.settling import Kept, lag_on
from tests.optimizers import own
from tests.training.test_outer_loop import COUNT, CPU, MakeExperiment, Poisoned, arrivals
from tests.training.whole_runs import Memory, StopAfter, comparable, train, train_in_process, undated

LAGS = (0, 1, 2)


def loop_of(experiment: Experiment, state: Any, lag: int, **options: Any) -> Any:
    return outer_loop(experiment, state, arrivals(experiment), LocalReducer(), CPU, lag=lag, **options)


def untimed(steps: list[Step]) -> list[Step]:
    return [step._replace(duration_s=0.0) for step in steps]


def test_by_device() -> None:
    assert lag_on(CPU) == 0 and lag_on(torch.device("cuda", 1)) == 1


@pytest.mark.parametrize(
    "optimizer",
    [
        Optimizer(outer_lr=0.05, schedule="cosine", clip_norm=0.1),
        Optimizer(kind="sgd", outer_lr=0.1, clip_norm=1e9),
        own.Signum(outer_lr=0.01, clip_norm=0.1),
    ],
    ids=["clipped", "not clipped", "of one's own"],
)
def test_the_same_bits_and_the_same_steps(optimizer: Any, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(optimizer=optimizer)
    found = []
    for lag in LAGS:
        state = initial_state(experiment, CPU)
        found.append((state, untimed(list(loop_of(experiment, state, lag)))))
    (alone, steps), *others = found
    assert [step.step for step in steps] == list(range(6))
    for state, other in others:
        assert other == steps and state.step == 6
        assert all(torch.equal(state.meta[name], alone.meta[name]) for name in alone.meta)


def test_who_looks_at_the_state_finds_it_settled(make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(num_steps=9)
    for lag in LAGS:
        state, ahead = initial_state(experiment, CPU), {}
        for step in loop_of(experiment, state, lag, settles=lambda done: done in (1, 5, 6)):
            ahead[step.step + 1] = state.step - step.step - 1
        assert all(ahead[done] == 0 for done in (1, 5, 6, 9)), ahead
        assert max(ahead.values()) == lag and list(ahead) == list(range(1, 10))


@pytest.mark.parametrize("lag", LAGS)
def test_a_stop_is_passed_on_with_a_settled_state(lag: int, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(num_steps=9)
    answers = iter([False, False, True, *[False] * 9])
    state, seen = initial_state(experiment, CPU), []
    for step in loop_of(experiment, state, lag, should_stop=lambda: next(answers)):
        seen.append(step.stop)
        if step.stop:
            assert state.step == step.step + 1
            break
    assert len(seen) == 3 + lag and sum(seen) == 1


@pytest.mark.parametrize("lag", LAGS)
@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        ({"value": 1e30, "at": 9}, r"stopped at step 2: the loss is not finite in episode 9 \(loss inf\)"),
        ({"at": 10}, r"stopped at step 2: the outer gradient is not finite \(norm nan\) over episodes 8 to 11, mean"),
        ({"at": 22}, r"stopped at step 5: the outer gradient is not finite"),
    ],
)
@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_what_is_not_finite_leaves_the_state_of_before(
    kind: str, algorithm: dict[str, Any], message: str, lag: int, make_experiment: MakeExperiment
) -> None:
    COUNT[0] = 0
    optimizer = Optimizer.parse({"kind": kind, "outer_lr": 0.01}, where=kind)
    experiment = make_experiment(algorithm=Poisoned(inner_lr=0.1, **algorithm), optimizer=optimizer)
    bad = int(message.partition(":")[0].removeprefix("stopped at step "))
    # What it was before that step, from a run that ends there.
    before = initial_state(experiment, CPU)
    good = outer_loop(experiment, before, arrivals(experiment), LocalReducer(), CPU, lag=0)
    for _ in range(bad):
        next(good)
    COUNT[0] = 0
    state = initial_state(experiment, CPU)
    seen: list[int] = []
    with pytest.raises(Diverged, match=message):
        seen.extend(step.step for step in loop_of(experiment, state, lag))
    assert seen == list(range(bad)) and state.step == bad
    assert all(torch.equal(before.meta[name], state.meta[name]) for name in before.meta)
    assert state.optimizer is not None and before.optimizer is not None
    one, other = state.optimizer.state_dict(), before.optimizer.state_dict()
    assert one["param_groups"] == other["param_groups"] and one["state"].keys() == other["state"].keys()
    for key, values in one["state"].items():
        assert all(torch.equal(values[name], other["state"][key][name]) for name in values)


class Fails(Poisoned):
    """Raises something where parameters are no numbers."""

    def meta_gradient(self, meta: Any, chunk: Any, context: Any) -> Any:
        if not all(tensor.isfinite().all() for tensor in meta.values()):
            raise RuntimeError("cholesky: the input is not positive-definite")
        return super().meta_gradient(meta, chunk, context)


def test_what_comes_of_parameters_that_must_not_stand_is_not_blamed(make_experiment: MakeExperiment) -> None:
    for lag in LAGS:
        COUNT[0] = 0
        experiment = make_experiment(algorithm=Fails(inner_lr=0.1, at=9))
        state = initial_state(experiment, CPU)
        with pytest.raises(Diverged, match="stopped at step 2: the outer gradient is not finite"):
            list(loop_of(experiment, state, lag))
        assert state.step == 2 and all(tensor.isfinite().all() for tensor in state.meta.values())


def test_what_fails_by_itself_says_so(make_experiment: MakeExperiment) -> None:
    class Gone(MAML):
        def meta_gradient(self, meta: Any, chunk: Any, context: Any) -> Any:
            if context.step == 3:
                raise RuntimeError("gone")
            return super().meta_gradient(meta, chunk, context)

    with pytest.raises(RuntimeError, match="^gone$"):
        experiment = make_experiment().model_copy(update={"algorithm": Gone(inner_lr=0.1)})
        list(loop_of(experiment, initial_state(experiment, CPU), 1))


@pytest.mark.parametrize("asked", [1, 3, 4])
@pytest.mark.parametrize("every", [2, 0])
def test_a_stopped_run_goes_on_to_the_same_bits(
    every: int, asked: int, make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Evaluation(every=every, val_episodes=6, test_episodes=8)
    experiment = make_experiment(evaluation=plan, checkpoint=Checkpoint(every=3))
    undisturbed, storage = (Storage(str(tmp_path / name)) for name in ("undisturbed", "stopped"))
    expected, _ = train(experiment, undisturbed)
    monkeypatch.setattr(its, "lag_on", lambda device: 1)
    memory = Memory()
    with pytest.raises(RunStopped, match="stopped by a signal after step"):
        train_in_process(experiment, storage, memory, device="cpu", should_stop=StopAfter(asked))
    stopped = saved_steps(storage)[-1]
    assert asked <= stopped <= asked + 1
    found, later = train(experiment, storage)
    assert [event.step for event in later.of("step")] == list(range(stopped + 1, 7))
    assert comparable(found) == comparable(expected)
    assert undated(storage) == undated(undisturbed)


@pytest.mark.parametrize("lag", [1, 2])
def test_a_whole_run_that_lags(
    lag: int, make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = make_experiment(algorithm=ProtoNet(), evaluation=Evaluation(every=4, val_episodes=6, test_episodes=8))
    expected, other = train(experiment, Storage(str(tmp_path / "not")))
    monkeypatch.setattr(its, "lag_on", lambda device: lag)
    found, memory = train(experiment, Storage(str(tmp_path / "lagging")))
    assert comparable(found) == comparable(expected)
    steps = [[_without_time(event) for event in heard.of("step")] for heard in (memory, other)]
    assert steps[0] == steps[1]


def _without_time(event: Event) -> Any:
    return event.step, {key: value for key, value in event.values.items() if not key.endswith("_s")}


def test_what_is_kept_is_a_copy(make_experiment: MakeExperiment) -> None:
    optimizer = CustomOptimizer(path=f"{own.__name__}:Nested", outer_lr=0.05)
    experiment = make_experiment(optimizer=optimizer, num_steps=3)
    state = initial_state(experiment, CPU)
    loop = loop_of(experiment, state, 0)
    next(loop)
    kept, before = Kept(state), {name: tensor.detach().clone() for name, tensor in state.meta.items()}
    identity = {name: id(tensor) for name, tensor in state.meta.items()}
    rest = untimed([next(loop), next(loop)])
    after = {name: tensor.detach().clone() for name, tensor in state.meta.items()}
    kept.put_back(state)
    assert state.step == 1 and all(torch.equal(state.meta[name], before[name]) for name in before)
    assert {name: id(tensor) for name, tensor in state.meta.items()} == identity
    again = outer_loop(experiment, state, arrivals(experiment, start=1), LocalReducer(), CPU, lag=0)
    assert untimed(list(again)) == rest
    assert all(torch.equal(state.meta[name], after[name]) for name in after), "the optimiser's state came back, too"


def test_the_norm_is_the_nearest_number() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        gradient = {"a": torch.randn(7, generator=generator)}
        assert float(global_norm(gradient)) == math.sqrt(float(gradient["a"].double().square().sum()))


@pytest.mark.parametrize("max_norm", [0.01, 1.0, 1e6])
@pytest.mark.parametrize("scale", [1e-3, 1.0, math.nan, math.inf])
def test_clipping_is_the_same_whether_the_norm_is_waited_for(max_norm: float, scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    gradient = {name: scale * torch.randn(5, 3, generator=generator) for name in "ab"}
    waited, not_waited = ({name: one.clone() for name, one in gradient.items()} for _ in range(2))
    norm = global_norm(gradient)
    clip_(waited, float(norm), max_norm)
    clip_(not_waited, norm, max_norm)
    for name in gradient:
        assert torch.equal(waited[name].nan_to_num(7.0), not_waited[name].nan_to_num(7.0))
