"""Meta-SGD against closed forms."""

import pytest
import torch

from metaray.algorithms import MAML, MetaSGD
from metaray.algorithms.algorithm import start
from metaray.algorithms.meta_sgd import RATE
from metaray.algorithms.task_shape import TaskShape
from metaray.models import MLP
from tests.algorithms.quadratic import of_square


@pytest.mark.parametrize("a", [0.0, 0.1, 0.4])
def test_meta_gradient_of_a_square(a: float) -> None:
    # L = (w (1 - 2a))^2, dL/da = -4 w^2 (1 - 2a)
    found, w = of_square(MetaSGD(inner_lr=a), 1.7).gradient, 1.7
    assert float(found["w"]) == pytest.approx(2 * w * (1 - 2 * a) ** 2, rel=1e-6)
    assert float(found[RATE + "w"]) == pytest.approx(-4 * w**2 * (1 - 2 * a), rel=1e-6)


def test_the_initialisation_has_mamls_gradient() -> None:
    one, other = (
        of_square(MetaSGD(inner_lr=0.25, inner_steps=2), 1.7),
        of_square(MAML(inner_lr=0.25, inner_steps=2), 1.7),
    )
    assert torch.equal(one.gradient["w"], other.gradient["w"])


def test_rates_start_by_pattern() -> None:
    _, meta = start(MetaSGD(inner_lr={"*": 0.1, "head.*": 0.5}), MLP(hidden=(4,)), TaskShape((3,), 2), seed=0)
    rates = {name.removeprefix(RATE): tensor for name, tensor in meta.items() if name.startswith(RATE)}
    assert {name: tensor.shape for name, tensor in rates.items()} == {n: meta[n].shape for n in rates}
    assert all((tensor == (0.5 if name.startswith("head") else 0.1)).all() for name, tensor in rates.items())
