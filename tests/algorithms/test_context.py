"""What algorithms are given: forward passes and gradients."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from metaray.algorithms.context import Context, Tensors
from metaray.models import Conv4
from metaray.models.model import build_seeded


def cube(at: Tensors) -> Tensor:
    return at["x"].pow(3).sum()


@pytest.fixture
def context() -> Context:
    return Context(network=nn.Linear(2, 2), ways=2)


@pytest.mark.parametrize("leaf", [True, False])
def test_gradient_of_a_cube(leaf: bool, context: Context) -> None:
    start = torch.tensor([1.0, 2.0], requires_grad=True)
    x = start if leaf else start * 1
    plain = context.gradient(cube, {"x": x}, differentiable=False)["x"]
    assert plain.tolist() == [3.0, 12.0] and not plain.requires_grad
    twice = context.gradient(cube, {"x": x}, differentiable=True)["x"]
    assert torch.autograd.grad(twice.sum(), start)[0].tolist() == [6.0, 12.0]


def test_gradient_inside_no_grad(context: Context) -> None:
    x = torch.tensor([1.0, 2.0])
    with torch.no_grad():
        assert context.gradient(cube, {"x": x}, differentiable=False)["x"].tolist() == [3.0, 12.0]
        assert not torch.is_grad_enabled()
    assert not x.requires_grad


def test_what_the_loss_does_not_touch_has_gradient_zero(context: Context) -> None:
    at = {"x": torch.ones(2), "unused": torch.ones(3)}
    assert context.gradient(cube, at, differentiable=False)["unused"].tolist() == [0.0, 0.0, 0.0]


def test_gradient_under_vmap(context: Context) -> None:
    batched, x = context.with_batched(True), torch.tensor([[1.0], [2.0], [3.0]])
    found = torch.vmap(lambda row: batched.gradient(cube, {"x": row}, differentiable=False)["x"])(x)
    assert found.tolist() == [[3.0], [12.0], [27.0]]
    assert batched.batched and not context.batched


def test_the_networks_own_weights_are_never_used(context: Context) -> None:
    parameters = {"weight": torch.eye(2), "bias": torch.ones(2)}
    assert context.forward(parameters, torch.tensor([[3.0, 4.0]])).tolist() == [[4.0, 5.0]]


@pytest.mark.parametrize(
    ("network", "dtype"),
    [(nn.Linear(1, 1), torch.float32), (nn.Linear(1, 1).double(), torch.float64), (nn.Identity(), torch.float32)],
)
def test_dtype_of_losses(network: nn.Module, dtype: torch.dtype) -> None:
    assert Context(network=network, ways=2).loss_dtype == dtype


def test_bfloat16_runs_the_network_alone_in_it(context: Context) -> None:
    half = replace(context, precision="bfloat16")
    parameters: Tensors = dict(context.network.named_parameters())
    assert half.forward(parameters, torch.ones(1, 2)).dtype == torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("colours", [1, 3])
def test_channels_last_changes_the_format_and_not_the_numbers(colours: int) -> None:
    network = build_seeded(Conv4(channels=4), (colours, 16, 16), 2, seed=0)
    maps: list[Tensor] = []
    first = next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    first.register_forward_hook(lambda module, args, output: maps.append(output))
    context, seen = Context(network=network, ways=2), []
    network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    parameters: Tensors = dict(network.named_parameters())
    x = torch.randn(2, colours, 16, 16)
    with torch.no_grad():
        plain = context.forward(parameters, x)
        other = replace(context, channels_last=True).forward(parameters, x)
    torch.testing.assert_close(plain, other)
    assert seen[1].is_contiguous(memory_format=torch.channels_last) and seen[0] is x
    formats = [found.is_contiguous(memory_format=torch.channels_last) for found in maps]
    assert formats == [False, True], "of one channel torch held any images for so laid out"


def test_inner_steps_that_are_differentiated_again_keep_the_other_format() -> None:
    """Double backward is dearer with channels last."""
    context = Context(network=Conv4().build((1, 16, 16), 2), ways=2, training=True, channels_last=True)
    assert not context.for_inner_steps(second_order=True).channels_last
    assert context.for_inner_steps(second_order=False).channels_last
    assert replace(context, training=False).for_inner_steps(second_order=True).channels_last
