"""The four-block convolutional network."""

from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaray.errors import InputError
from metaray.models import Conv4


@pytest.mark.parametrize(
    ("downsample", "side", "embedding"), [("max_pool", 28, 64), ("max_pool", 84, 1600), ("stride", 28, 64)]
)
def test_embedding_sizes_of_the_literature(downsample: str, side: int, embedding: int) -> None:
    network = Conv4.parse({"downsample": downsample}, where="model").build((1, side, side), None)
    with torch.no_grad():
        assert network(torch.randn(2, 1, side, side)).shape == (2, embedding)


@pytest.mark.parametrize(
    ("downsample", "pools", "side", "embedding"),
    [("max_pool", 1, 9, 4 * 16), ("max_pool", 2, 28, 4 * 49), ("max_pool", 3, 28, 4 * 9), ("stride", 2, 28, 4)],
)
def test_fewer_blocks_may_halve(downsample: str, pools: int, side: int, embedding: int) -> None:
    model = Conv4.parse({"channels": 4, "downsample": downsample, "pools": pools}, where="model")
    network = model.build((1, side, side), None)
    maps: list[tuple[int, ...]] = []
    for block in list(cast(nn.Sequential, network.body))[:4]:
        block.register_forward_hook(lambda _module, _inputs, output: maps.append(tuple(output.shape[2:])))
    assert network(torch.randn(2, 1, side, side)).shape == (2, embedding)
    halve: Callable[[int], int] = (lambda size: size // 2) if downsample == "max_pool" else (lambda size: -(-size // 2))
    for i in range(4):
        side = halve(side) if i < pools else side
        assert maps[i] == (side, side)


def test_parameters_do_not_depend_on_how_many_halve() -> None:
    shapes = [
        [p.shape for p in Conv4(channels=4, pools=pools, downsample="stride").build((1, 16, 16), 5).parameters()]
        for pools in (1, 2, 3, 4)
    ]
    assert shapes.count(shapes[0]) == 4


def test_blocks_may_differ_in_width() -> None:
    network = Conv4(channels=(3, 4, 5, 6)).build((3, 32, 32), None)
    assert [p.shape[0] for p in network.parameters() if p.ndim == 4] == [3, 4, 5, 6]
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 6 * 4)
    same = [list(Conv4.parse({"channels": c}, where="model").build((1, 16, 16), 2).state_dict()) for c in (4, [4] * 4)]
    assert same[0] == same[1]
    assert Conv4(channels=(3, 4, 5, 6), downsample="stride").build((3, 32, 32), None)(
        torch.randn(1, 3, 32, 32)
    ).shape == (1, 6)


@pytest.mark.parametrize("channels", [0, [4, 4, 4], [4, 4, 4, 0]])
def test_widths_that_do_not_fit(channels: object) -> None:
    with pytest.raises(InputError, match="channels"):
        Conv4.parse({"channels": channels}, where="model")


def test_parameter_count_of_the_literature() -> None:
    # 112k with a 5-way head on 28x28 grey images: 640 + 3 * 36928 + 4 * 128 + 325.
    network = Conv4().build((1, 28, 28), 5)
    assert sum(p.numel() for p in network.parameters()) == 640 + 3 * 36928 + 4 * 128 + 325


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 17, 30)])
@pytest.mark.parametrize("downsample", ["max_pool", "stride"])
def test_odd_sizes_and_colours(shape: tuple[int, ...], downsample: str) -> None:
    network = Conv4.parse({"channels": 4, "downsample": downsample}, where="model").build(shape, 5)
    assert network(torch.randn(2, *shape)).shape == (2, 5)


def test_inputs_it_cannot_take() -> None:
    with pytest.raises(InputError, match=r"not features of shape \(784,\)"):
        Conv4().build((784,), 5)
    with pytest.raises(InputError, match="15x40 is smaller than 16x16"):
        Conv4().build((1, 15, 40), 5)
    with pytest.raises(InputError, match="halves its input 2 times: 28x3 is smaller than 4x4"):
        Conv4(pools=2).build((1, 28, 3), 5)
    with pytest.raises(InputError, match=r"pools: .*less than or equal to 4 \(got 5\)"):
        Conv4.parse({"pools": 5}, where="model")
    with pytest.raises(InputError, match=r"channels: .*greater than 0 \(got 0\)"):
        Conv4.parse({"channels": 0}, where="model")


def test_batch_norm_takes_biases_away() -> None:
    with_bias = Conv4(channels=4).build((1, 16, 16), 3)
    without = Conv4(channels=4, bias=False).build((1, 16, 16), 3)
    state = with_bias.state_dict()
    biases = {name for name in state if name.endswith("conv.bias")}
    assert len(biases) == 4
    for name in biases:
        state[name].fill_(0.7)
    without.load_state_dict({name: tensor for name, tensor in state.items() if name not in biases})
    x = torch.randn(6, 1, 16, 16)
    torch.testing.assert_close(without(x), with_bias(x), rtol=1e-4, atol=1e-5)


def test_pooling_first_changes_no_bit() -> None:
    x = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    forms: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda z: F.relu(F.max_pool2d(z, 2)),
        lambda z: F.max_pool2d(F.relu(z), 2),
    )
    found = []
    for form in forms:
        at = x.clone().requires_grad_()
        output = form(at.pow(3) - at)
        (slope,) = torch.autograd.grad(output.square().sum(), at, create_graph=True)
        (bend,) = torch.autograd.grad(slope.square().sum(), at)
        found.append((output.detach(), slope.detach(), bend))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
