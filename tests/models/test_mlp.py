"""The multi-layer perceptron."""

import pytest
import torch
from torch import nn

from metaray.errors import InputError
from metaray.models import MLP
from metaray.models.batch_norm import EpisodicBatchNorm


@pytest.mark.parametrize("hidden", [(), (5,), (7, 5)])
@pytest.mark.parametrize("outputs", [None, 3])
def test_shapes(hidden: tuple[int, ...], outputs: int | None) -> None:
    network = MLP(hidden=hidden).build((1, 2, 3), outputs)
    assert network(torch.randn(4, 1, 2, 3)).shape == (4, outputs or (hidden or (6,))[-1])


def test_no_hidden_layer_is_a_linear_model() -> None:
    network = MLP(hidden=()).build((2, 2), 3)
    x = torch.randn(5, 2, 2)
    head = network.get_submodule("head")
    assert torch.equal(network(x), head(x.flatten(1)))


def test_batch_norm_is_optional() -> None:
    def norms(model: MLP) -> int:
        return sum(isinstance(m, EpisodicBatchNorm | nn.BatchNorm1d) for m in model.build((4,), 2).modules())

    assert norms(MLP(hidden=(3, 3))) == 2 and norms(MLP(hidden=(3, 3), batch_norm=False)) == 0


@pytest.mark.parametrize("size", [0, -3])
def test_layers_have_at_least_one_unit(size: int) -> None:
    with pytest.raises(InputError, match=rf"hidden\.1: .*greater than 0 \(got {size}\)"):
        MLP.parse({"hidden": [4, size]}, where="model")
