"""Convolutions as products with unfolded inputs: those of torch, with their derivatives."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from metaray.models import Conv4, ResNet12
from metaray.models.unfolded import conv2d
from metaray.models.written_out import written_out
from tests.conformance.bench import Bench, Trial, close

CASES: list[dict[str, Any]] = [
    {},
    {"padding": 1},
    {"padding": (1, 0), "stride": 2},
    {"stride": (1, 2), "dilation": 2, "padding": 2},
    {"padding": "same", "dilation": (1, 2)},
    {"padding": "valid"},
]


def tensors(side: int = 3, *lead: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((*lead, 2, 2, 6, 7), (*lead, 3, 2, side, side), (*lead, 3))
    x, weight, bias = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


@pytest.mark.parametrize("side", [1, 3])
@pytest.mark.parametrize("options", CASES, ids=str)
def test_values_and_two_derivatives(side: int, options: dict[str, Any]) -> None:
    given = tensors(side)
    found, expected = conv2d(*given, **options), torch.conv2d(*given, **options)
    close(found, expected)
    weights = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view(expected.shape)
    slopes = [torch.autograd.grad((out**3 * weights).sum(), given, create_graph=True) for out in (found, expected)]
    bends = [torch.autograd.grad(torch.stack([(s**2).sum() for s in slope]).sum(), given) for slope in slopes]
    for one, other in (*zip(*slopes, strict=True), *zip(*bends, strict=True)):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def strided(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return conv2d(x, weight, bias, stride=2, padding=1)


def test_second_derivatives_against_differences() -> None:
    x, weight, bias = tensors()
    small = [x[:1, :, :4, :4].detach().requires_grad_(), weight, bias]
    assert torch.autograd.gradcheck(strided, small)
    assert torch.autograd.gradgradcheck(strided, small)


def test_groups_and_single_images_are_torchs_own() -> None:
    x, weight, bias = tensors()
    assert torch.equal(conv2d(x, weight[:2, :1], groups=2), torch.conv2d(x, weight[:2, :1], groups=2))
    assert torch.equal(conv2d(x[0], weight, bias), torch.conv2d(x[0], weight, bias))


def test_under_vmap_with_weights_by_episode() -> None:
    given = tensors(3, 4)
    found = torch.vmap(lambda x, weight, bias: conv2d(x, weight, bias, padding=1))(*given)
    close(found, torch.stack([torch.conv2d(*one, padding=1) for one in zip(*given, strict=True)]))


@pytest.mark.parametrize(
    "model", [Conv4(channels=3), Conv4(channels=3, downsample="stride"), ResNet12(channels=(2,) * 4)]
)
def test_the_meta_gradient_of_a_chunk(model: Any) -> None:
    bench = Bench(Trial("maml", "classification", "inductive"), model=model, feature=(1, 16, 16))
    chunk = bench.episode(size=2)
    plain = bench.context.with_batched(True)
    one, other = (
        bench.algorithm.meta_gradient(bench.meta, chunk, dataclasses.replace(plain, unfolded=unfolded)).gradient
        for unfolded in (False, True)
    )
    assert any(not torch.equal(one[name], other[name]) for name in one)
    for name, tensor in one.items():
        close(other[name], tensor, tolerance=1e-9)


def test_a_layer_computes_so_inside_of_the_block() -> None:
    layer = torch.nn.Conv2d(2, 3, 3, padding=1).double()
    x = tensors()[0]
    with written_out(convolutions=True):
        found = layer(x)
    close(found, layer(x))
    assert found.stride() != layer(x).stride()
