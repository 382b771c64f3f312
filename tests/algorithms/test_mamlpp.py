"""MAML++: learned rates, the multi-step loss, the order, batch norm weights by step."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from metaray.algorithms import MAML, MAMLPP
from metaray.algorithms.algorithm import start
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.mamlpp import RATE, STEPS
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import TensorEpisode
from metaray.models import MLP
from tests.algorithms.quadratic import of_square

MakeEpisode = Callable[..., TensorEpisode]


def bench(algorithm: MAMLPP | MAML, *, batch_norm: bool = True) -> tuple[Tensors, Context]:
    network, meta = start(algorithm, MLP(hidden=(6,), batch_norm=batch_norm), TaskShape((1, 2, 2), 3), seed=1)
    context = Context(network=network.double(), ways=3, training=True)
    return {name: tensor.double().requires_grad_() for name, tensor in meta.items()}, context


@pytest.mark.parametrize("second_order", [True, False])
def test_with_its_parts_switched_off_it_is_maml(second_order: bool, make_episode: MakeEpisode) -> None:
    algorithm = MAMLPP(inner_lr=0.5, inner_steps=2, msl_steps=0, first_order_steps=0 if second_order else 1)
    maml = MAML(inner_lr=0.5, inner_steps=2, second_order=second_order)
    (meta, context), (plain, other) = (bench(a, batch_norm=False) for a in (algorithm, maml))
    one, two = algorithm.meta_gradient(meta, make_episode(), context), maml.meta_gradient(plain, make_episode(), other)
    for name in plain:
        torch.testing.assert_close(one.gradient[name], two.gradient[name], rtol=1e-12, atol=1e-14)
    assert all(one.gradient[name].abs().min() > 0 for name in meta if name.startswith(RATE))


def test_order_changes_at_its_step(make_episode: MakeEpisode) -> None:
    algorithm = MAMLPP(inner_steps=2, first_order_steps=10, msl_steps=0)
    meta, context = bench(algorithm)
    early, late, later = (
        algorithm.meta_gradient(meta, make_episode(), replace(context, step=step)).gradient for step in (9, 10, 11)
    )
    assert all(torch.equal(late[name], later[name]) for name in meta)
    assert not torch.allclose(early["body.1.weight"], late["body.1.weight"])


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, [0.25] * 4), (50, [0.125, 0.125, 0.125, 0.625]), (99, [0.0075] * 3 + [0.9775]), (100, [0, 0, 0, 1])],
)
def test_weights_of_the_multi_step_loss(step: int, expected: list[float]) -> None:
    assert MAMLPP(inner_steps=4, msl_steps=100).weights(step) == pytest.approx(expected)


def test_the_multi_step_loss_of_a_square() -> None:
    # w_i of 1/2 each: L = (w^2 (1-2a)^2 + w^2 (1-2a)^4) / 2
    a, w = 0.1, 1.7
    found = of_square(MAMLPP(inner_lr=a, inner_steps=2, msl_steps=100), w)
    r = 1 - 2 * a
    assert float(found.outcome.loss) == pytest.approx(w**2 * (r**2 + r**4) / 2, rel=1e-6)
    assert float(found.gradient["w"]) == pytest.approx(w * (r**2 + r**4), rel=1e-6)
    # Of both steps' rates: the first is in both losses, the second in the last alone.
    assert found.gradient[RATE + "w"].tolist() == pytest.approx([-2 * w**2 * (r + r**3), -2 * w**2 * r**3], rel=1e-6)


def test_batch_norm_weights_belong_to_steps(make_episode: MakeEpisode) -> None:
    algorithm = MAMLPP(inner_steps=3, msl_steps=0)
    meta, context = bench(algorithm)
    name = STEPS + "body.2.weight"
    assert meta[name].shape == (3, 6) and RATE + "body.2.weight" not in meta and "body.2.weight" not in meta
    gradient = algorithm.meta_gradient(meta, make_episode(), context).gradient[name]
    assert (gradient.abs().amax(dim=1) > 1e-8).all()
    changed = {**meta, name: meta[name].detach() * torch.tensor([[1.0], [1.0], [2.0]], dtype=torch.float64)}
    adapted = [algorithm.adapt(m, make_episode().support, context)["body.2.weight"] for m in (meta, changed)]
    torch.testing.assert_close(adapted[1], 2 * adapted[0])


def test_more_steps_than_trained_reuse_the_last(make_episode: MakeEpisode) -> None:
    algorithm = MAMLPP(inner_steps=2)
    meta, context = bench(algorithm)
    judged = replace(context, training=False)
    five = algorithm.adapt(meta, make_episode().support, replace(judged, inner_steps=5))
    two = algorithm.adapt(meta, make_episode().support, judged)
    assert torch.equal(five["body.2.weight"], two["body.2.weight"])
    assert not torch.equal(five["head.weight"], two["head.weight"])


def test_rates_start_at_one_number_per_step() -> None:
    algorithm = MAMLPP(inner_lr=(0.1, 0.05, 0.02), inner_steps=3)
    _, meta = start(algorithm, MLP(hidden=(6,), batch_norm=True), TaskShape((1, 2, 2), 3), seed=1)
    learned = {name: value for name, value in meta.items() if name.startswith(RATE)}
    assert len(learned) > 1 and all(value.tolist() == pytest.approx([0.1, 0.05, 0.02]) for value in learned.values())
    assert all(value.dtype == torch.float32 for value in learned.values())


def test_equal_numbers_per_step_are_one_number() -> None:
    for inner_lr in (0.1, 1 / 3, 1e-45):
        of = [MAMLPP(inner_lr=given, inner_steps=3) for given in (inner_lr, (inner_lr,) * 3, {"*": inner_lr})]
        one, *others = (start(algorithm, MLP(hidden=(6,)), TaskShape((1, 2, 2), 3), seed=1)[1] for algorithm in of)
        assert all(torch.equal(one[name], other[name]) for other in others for name in one)
        assert torch.equal(one[RATE + "head.weight"], torch.full((3,), inner_lr))


def test_each_step_takes_its_own_rate() -> None:
    # L = w^2 (1-2a)^2 (1-2b)^2
    a, b, w = 0.1, 0.3, 1.7
    found = of_square(MAMLPP(inner_lr=(a, b), inner_steps=2, msl_steps=0), w)
    assert float(found.outcome.loss) == pytest.approx(w**2 * (1 - 2 * a) ** 2 * (1 - 2 * b) ** 2, rel=1e-6)


@pytest.mark.parametrize("count", [0, 2, 4])
def test_as_many_rates_as_steps(count: int) -> None:
    with pytest.raises(ValueError, match=f"inner_lr: {count} rates for 3 inner_steps"):
        MAMLPP(inner_lr=(0.1,) * count, inner_steps=3)
