"""FOMAML against its closed form and against MAML without second order."""

from collections.abc import Callable

import pytest
import torch

from metaray.algorithms import FOMAML, MAML
from metaray.algorithms.algorithm import start
from metaray.algorithms.context import Context
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import TensorEpisode
from metaray.models import MLP
from tests.algorithms.quadratic import of_square


@pytest.mark.parametrize(("a", "steps"), [(0.1, 0), (0.1, 1), (0.4, 3)])
def test_meta_gradient_of_a_square(a: float, steps: int) -> None:
    found = of_square(FOMAML(inner_lr=a, inner_steps=steps), 1.7).gradient["w"]
    assert float(found) == pytest.approx(2 * 1.7 * (1 - 2 * a) ** steps, rel=1e-12)


@pytest.mark.parametrize("protocol", ["transductive", "inductive"])
def test_it_is_maml_in_first_order(protocol: str, make_episode: Callable[..., TensorEpisode]) -> None:
    fields = {"inner_lr": 0.3, "inner_steps": 2, "batch_norm": protocol}
    fomaml, maml = FOMAML.parse(fields, where=""), MAML.parse({**fields, "second_order": False}, where="")
    network, meta = start(fomaml, MLP(hidden=(6, 5)), TaskShape((1, 2, 2), 3), seed=1)
    context = Context(network=network.double(), ways=3, training=True)
    meta = {name: tensor.double().requires_grad_() for name, tensor in meta.items()}
    one, other = (a.meta_gradient(meta, make_episode(), context).gradient for a in (fomaml, maml))
    assert all(torch.equal(one[name], other[name]) for name in meta)
    assert not fomaml.differentiates_twice and not maml.differentiates_twice and MAML().differentiates_twice
