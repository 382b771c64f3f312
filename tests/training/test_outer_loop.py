"""THE outer loop against a loop written by hand, and what ends it."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metaray.algorithms import CAVIA, MAML, ProtoNet
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.inner_lr import Schedule
from metaray.config import replace
from metaray.episodes.augmentation import Augmentation
from metaray.episodes.prefetch import Arrival
from metaray.episodes.sampler import sample_meta_batch
from metaray.episodes.tensors import chunks
from metaray.errors import Diverged, InputError
from metaray.experiment.experiment import Evaluation, Experiment, Precision
from metaray.experiment.optimizer import Optimizer
from metaray.models import MLP, Custom
from metaray.models.model import build_seeded
from metaray.records.train_state import TrainState
from metaray.training.evaluation import evaluate, judge_of
from metaray.training.outer_loop import Step, chunk_size_of, context_of, initial_state, outer_loop
from metaray.training.readiness import strategy_of
from metaray.training.reduction import LocalReducer

MakeExperiment = Callable[..., Experiment]
CPU = torch.device("cpu")


def arrivals(experiment: Experiment, *, start: int = 0, wait_s: float = 0.0) -> Iterator[Arrival]:
    size = experiment.meta_batch_size
    for step in range(start, experiment.num_steps):
        indices = range(step * size, step * size + size)
        batch = sample_meta_batch(experiment.source, experiment.episodes, "meta-train", experiment.seed, indices)
        yield Arrival(step, batch, wait_s)


def train(experiment: Experiment, **options: Any) -> tuple[TrainState, list[Step]]:
    state = initial_state(experiment, CPU)
    return state, list(outer_loop(experiment, state, arrivals(experiment), LocalReducer(), CPU, **options))


def assert_close(found: Tensors, expected: Tensors, *, tolerance: float = 1e-6) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_equals_a_loop_written_by_hand(kind: str, make_experiment: MakeExperiment) -> None:
    optimizer = Optimizer.parse(
        {"kind": kind, "outer_lr": 0.05, "schedule": "cosine", "weight_decay": 0.01, "clip_norm": 0.8}, where=kind
    )
    # No batch norm: before one, biases have gradients of rounding errors alone, which Adam scales up to whole steps.
    experiment = make_experiment(model=MLP(hidden=(8,), batch_norm=False), optimizer=optimizer, num_steps=4)
    state, steps = train(experiment)

    network = build_seeded(experiment.model, (1, 16, 16), 3, seed=0)
    weights = list(network.parameters())
    cls = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[kind]
    by_hand = cls(weights, lr=0.05, weight_decay=0.01)
    for step in range(4):
        by_hand.param_groups[0]["lr"] = 0.05 * 0.5 * (1 + math.cos(math.pi * step / 4))
        by_hand.zero_grad()
        losses = []
        for index in range(4 * step, 4 * step + 4):
            batch = sample_meta_batch(experiment.source, experiment.episodes, "meta-train", 0, [index])
            ((episode,),) = chunks(batch, 1, CPU, experiment.source, "meta-train")
            theta: Tensors = dict(network.named_parameters())
            loss = torch.nn.functional.cross_entropy(network(episode.support.x), episode.support.y)
            slopes = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
            theta = {name: w - 0.1 * g for (name, w), g in zip(theta.items(), slopes, strict=True)}
            logits = torch.func.functional_call(network, theta, (episode.query.x,))
            losses.append(torch.nn.functional.cross_entropy(logits, episode.query.y))
        mean = torch.stack(losses).mean()
        mean.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(weights, 0.8))
        by_hand.step()
        assert steps[step].loss == pytest.approx(float(mean.detach()), rel=1e-5)
        assert steps[step].gradient_norm == pytest.approx(norm, rel=1e-4)
        assert steps[step].outer_lr == pytest.approx(by_hand.param_groups[0]["lr"])
    assert_close(state.meta, dict(network.named_parameters()), tolerance=1e-4)


def test_a_run_is_a_function_of_its_experiment(make_experiment: MakeExperiment) -> None:
    (one, steps), (two, _) = (train(make_experiment()) for _ in range(2))
    assert all(torch.equal(one.meta[name], two.meta[name]) for name in one.meta)
    (other, _) = train(make_experiment(seed=1))
    assert not torch.equal(one.meta["head.weight"], other.meta["head.weight"])
    assert [s.step for s in steps] == list(range(6)) and one.step == 6


TRANSDUCTIVE = {"batch_norm": "transductive"}


@pytest.mark.parametrize(
    "algorithm",
    [MAML(inner_lr=0.1, inner_steps=2, **TRANSDUCTIVE), MAML(batch_norm="inductive"), ProtoNet(**TRANSDUCTIVE)],
)
@pytest.mark.parametrize("chunk_size", [2, 3, 8])
def test_chunks_change_rounding_alone(
    algorithm: MAML | ProtoNet, chunk_size: int, make_experiment: MakeExperiment
) -> None:
    optimizer = Optimizer(kind="sgd", outer_lr=0.1)
    experiment = make_experiment(algorithm=algorithm, optimizer=optimizer, num_steps=3)
    alone, steps = train(experiment)
    chunked, other = train(make_experiment(**{**dict(experiment), "chunk_size": chunk_size}))
    assert_close(chunked.meta, alone.meta, tolerance=1e-4)
    assert [s.loss for s in steps] == pytest.approx([s.loss for s in other], rel=1e-4)
    assert [s.score for s in steps] == pytest.approx([s.score for s in other])


def test_images_are_augmented_in_training_alone(make_experiment: MakeExperiment) -> None:
    plain, altered = (
        make_experiment(num_steps=2),
        make_experiment(num_steps=2, augmentation=Augmentation(crop_padding=3)),
    )
    (_, steps), (state, other) = train(plain), train(altered)
    assert steps[0].loss != other[0].loss
    judged = [
        evaluate(
            one.algorithm,
            state.meta,
            context_of(one, state.network, training=False),
            judge_of(one, "meta-val"),
            device=CPU,
        ).loss.tolist()
        for one in (plain, altered)
    ]
    assert judged[0] == judged[1]
    chunked = make_experiment(num_steps=2, augmentation=Augmentation(crop_padding=3), chunk_size=3)
    assert [s.loss for s in train(chunked)[1]] == pytest.approx([s.loss for s in other], rel=1e-4)


def test_it_learns(make_experiment: MakeExperiment) -> None:
    _, steps = train(make_experiment(num_steps=40, algorithm=ProtoNet()))
    first, last = (sum(s.loss for s in part) / 5 for part in (steps[:5], steps[-5:]))
    assert last < 0.7 * first


def test_half_precision_trains_in_float32_weights(make_experiment: MakeExperiment) -> None:
    state, steps = train(make_experiment(precision=Precision(dtype="bfloat16", channels_last=True)))
    assert all(math.isfinite(s.loss) for s in steps)
    assert {t.dtype for t in state.meta.values()} == {torch.float32}


def test_the_gradient_is_clipped_and_its_norm_reported_before(make_experiment: MakeExperiment) -> None:
    optimizer = Optimizer(kind="sgd", outer_lr=1.0, clip_norm=0.01)
    experiment = make_experiment(optimizer=optimizer, num_steps=1)
    before = initial_state(experiment, CPU).meta
    state, (step,) = train(experiment)
    moved = math.sqrt(sum(float((state.meta[n] - before[n]).detach().square().sum()) for n in before))
    assert moved == pytest.approx(0.01, rel=1e-3) and step.gradient_norm > 0.02


def test_schedules_see_the_outer_step(make_experiment: MakeExperiment) -> None:
    schedule = Schedule(steps=(0, 2), values=(0.1, 0.5))
    still = make_experiment(algorithm=MAML(inner_lr=schedule, batch_norm="transductive"), num_steps=3)
    plain, changed = train(make_experiment(num_steps=3))[1], train(still)[1]
    assert [a.loss == b.loss for a, b in zip(plain, changed, strict=True)] == [True, True, False]


class Poisoned(MAML):
    """Its loss overflows in episode `at`, towards the sign of `value`; its gradient is NaN there where that is None."""

    value: float | None = None
    at: int = 0

    def meta_gradient(self, meta: Any, chunk: Any, context: Any) -> Any:
        found = super().meta_gradient(meta, chunk, context)
        COUNT[0] += 1
        if COUNT[0] - 1 != self.at:
            return found
        if self.value is None:
            next(iter(found.gradient.values()))[0] = math.nan
            return found
        loss = found.outcome.loss * self.value * 1e30
        return found._replace(outcome=found.outcome._replace(loss=loss))


COUNT = [0]


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        ({"value": 1e30, "at": 9}, r"stopped at step 2: the loss is not finite in episode 9 \(loss inf\)"),
        ({"value": -1e30, "at": 8}, r"stopped at step 2: the loss is not finite in episode 8 \(loss -inf\)"),
        ({"at": 10}, r"stopped at step 2: the outer gradient is not finite \(norm nan\) over episodes 8 to 11, mean"),
    ],
)
def test_what_is_not_finite_stops_the_run(
    algorithm: dict[str, Any], message: str, make_experiment: MakeExperiment
) -> None:
    COUNT[0] = 0
    experiment = make_experiment(algorithm=Poisoned(inner_lr=0.1, **algorithm))
    state = initial_state(experiment, CPU)
    loop = outer_loop(experiment, state, arrivals(experiment), LocalReducer(), CPU)
    next(loop), next(loop)
    before = {name: t.detach().clone() for name, t in state.meta.items()}
    with pytest.raises(Diverged, match=message):
        next(loop)
    assert state.step == 2
    assert all(torch.equal(before[name], state.meta[name]) for name in before)


def test_a_learning_rate_far_too_high(make_experiment: MakeExperiment) -> None:
    with pytest.raises(Diverged, match=r"stopped at step 1: .*smaller inner or outer learning rate often helps"):
        train(make_experiment(optimizer=Optimizer(kind="sgd", outer_lr=1e38)))


def test_the_stop_flag_is_asked_at_each_step_and_passed_on(make_experiment: MakeExperiment) -> None:
    answers = iter([False, True, False, False, False, False])
    _, steps = train(make_experiment(), should_stop=lambda: next(answers))
    assert [s.stop for s in steps] == [False, True, False, False, False, False]


def test_waiting_counts_into_the_step(make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(num_steps=2)
    state = initial_state(experiment, CPU)
    steps = list(outer_loop(experiment, state, arrivals(experiment, wait_s=0.25), LocalReducer(), CPU))
    assert [s.wait_s for s in steps] == [0.25, 0.25] and all(s.duration_s > 0 for s in steps)


def test_initial_state_is_pure(make_experiment: MakeExperiment) -> None:
    one, two = (initial_state(make_experiment(), CPU) for _ in range(2))
    assert one.step == 0 and all(torch.equal(one.meta[n], two.meta[n]) for n in one.meta)
    assert all(t.is_leaf and t.requires_grad for t in one.meta.values())
    assert one.meta["head.weight"].data_ptr() != one.network.get_parameter("head.weight").data_ptr()


def test_contexts_of_training_and_judging(make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(
        algorithm=ProtoNet(),
        evaluation=Evaluation.parse({"inner_steps": 7, "episodes": {"ways": 2, "shots": 1, "queries": 1}}, where="e"),
    )
    network = initial_state(experiment, CPU).network
    training, judging = (context_of(experiment, network, training=flag, step=4) for flag in (True, False))
    assert isinstance(training, Context)
    assert (training.ways, training.inner_steps, training.training, training.step) == (3, None, True, 4)
    assert (judging.ways, judging.inner_steps, judging.training) == (2, 7, False)


def test_chunks_by_device(make_experiment: MakeExperiment) -> None:
    gpu = torch.device("cuda")
    assert chunk_size_of(make_experiment(), CPU) == 1
    assert chunk_size_of(make_experiment(chunk_size=3), CPU) == chunk_size_of(make_experiment(chunk_size=3), gpu) == 3
    assert chunk_size_of(make_experiment(chunk_size=9), CPU) == 4
    found = [chunk_size_of(make_experiment(meta_batch_size=size), gpu) for size in (1, 4, 5, 8, 30, 32)]
    assert found == [1, 4, 5, 8, 30, 32]
    assert (
        chunk_size_of(make_experiment(most_workers=3), CPU) == chunk_size_of(make_experiment(most_workers=3), gpu) == 2
    )


class WithDropout(nn.Module):
    """A user's own network that draws random numbers."""

    def __init__(self, feature_shape: tuple[int, ...], outputs: int | None) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(math.prod(feature_shape), outputs or 8))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


def test_dropout_depends_on_the_episode_not_on_history(make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(model=Custom(path=f"{__name__}:WithDropout"), num_steps=3)
    first, _ = train(experiment)
    torch.rand(17)  # moves the global generator
    again, _ = train(experiment)
    for name, tensor in first.meta.items():
        assert torch.equal(tensor, again.meta[name]), name
    x = torch.rand(4, 1, 16, 16)
    judging = context_of(experiment, first.network, training=False)
    assert torch.equal(judging.forward(first.meta, x), judging.forward(first.meta, x)), "no dropout in evaluation"
    training = context_of(experiment, first.network, training=True)
    assert not torch.equal(training.forward(first.meta, x), training.forward(first.meta, x))


def test_what_is_to_be_compiled_is_never_computed_plain(make_experiment: Any) -> None:
    """Who iterates hands a strategy in; without one nobody would notice."""
    experiment = make_experiment(execution="compiled")
    with pytest.raises(AssertionError, match="a strategy makes it so"):
        next(outer_loop(experiment, initial_state(experiment, CPU), iter(()), LocalReducer(), CPU))
    assert strategy_of(experiment, CPU).kind == "compiled"
    asked = replace(experiment, algorithm=CAVIA(inner_lr=0.1, context_size=4))
    with pytest.raises(InputError, match="execution=compiled: cavia on mlp: computed each, because"):
        strategy_of(asked, CPU)
