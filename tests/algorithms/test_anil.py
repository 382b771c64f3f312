"""ANIL: what adapts and what does not."""

import re
from collections.abc import Callable

import pytest
import torch

from metaray.algorithms import ANIL, MAML
from metaray.algorithms.algorithm import start
from metaray.algorithms.context import Context
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import TensorEpisode
from metaray.errors import InputError
from metaray.models import MLP

PROBLEM = TaskShape((1, 2, 2), 3)


def test_it_is_maml_whose_body_has_no_rate(make_episode: Callable[..., TensorEpisode]) -> None:
    anil, maml = ANIL(inner_lr=0.5, inner_steps=3), MAML(inner_lr={"body.*": 0.0, "head.*": 0.5}, inner_steps=3)
    network, meta = start(anil, MLP(hidden=(6, 5)), PROBLEM, seed=1)
    context = Context(network=network.double(), ways=3, training=True)
    meta = {name: tensor.double().requires_grad_() for name, tensor in meta.items()}
    adapted = anil.adapt(meta, make_episode().support, context)
    assert all((adapted[name] is meta[name]) == name.startswith("body") for name in meta)
    one, other = (a.meta_gradient(meta, make_episode(), context).gradient for a in (anil, maml))
    for name in meta:
        torch.testing.assert_close(one[name], other[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("head", "extent"), [("haed.*", "no"), ("*", "every")])
def test_a_head_that_is_none(head: str, extent: str) -> None:
    expected = (
        f"head '{head}' fits {extent} parameter of the network. The last layer is --set algorithm.head='head.*'. "
        "Parameters: body"
    )
    with pytest.raises(InputError, match=re.escape(expected)):
        start(ANIL(head=head), MLP(hidden=(6,)), PROBLEM, seed=1)
