"""Graphs of functions: what is differentiated, and what is cut off."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metaray.training.execution.tracing import NotTraceable, traced


def slope(function: Callable[..., Sequence[Tensor]], *inputs: Tensor) -> Tensor:
    given = [tensor.detach().requires_grad_() for tensor in inputs]
    found: Tensor = torch.autograd.grad(sum(out.pow(3).sum() for out in function(*given)), given)[0]  # type: ignore[arg-type]
    return found


def X() -> Tensor:
    return torch.linspace(-1, 2, 5, dtype=torch.float64).requires_grad_()


def inner(x: Tensor) -> list[Tensor]:
    """Of saved outputs: torch detaches those of sigmoid, exp, rsqrt, relu and log_softmax."""
    y = nn.functional.log_softmax(torch.sigmoid(x).exp() * torch.rsqrt(x * x + 1) + x.relu(), 0).square().sum()
    return list(torch.autograd.grad(y, [x], create_graph=True))


def first_order(x: Tensor) -> list[Tensor]:
    (gradient,) = torch.autograd.grad((x**4).sum(), [x])
    return [x - 0.1 * gradient]


def detaches(x: Tensor) -> list[Tensor]:
    return [x * x.sin().detach() + torch.detach(x) * x.data]


def switches_off(x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        high, place = (x.exp() * 2).sort()
        scaled = high * 3
    return [scaled * x + place]


@pytest.mark.parametrize("function", [inner, first_order, detaches, switches_off])
def test_derivatives_are_those_of_the_function(function: Callable[..., list[Tensor]]) -> None:
    graph = traced(function, [X()])
    assert torch.equal(slope(graph, X() + 0.3), slope(function, X() + 0.3))
    assert torch.equal(graph(X())[0], function(X())[0])


def test_what_is_cut_is_cut_once_more() -> None:
    """The other way round: without its marks the graph would be another function of derivatives."""
    graph = traced(first_order, [X()])
    assert torch.equal(slope(graph, X()), 3 * first_order(X())[0].detach() ** 2)


def test_random_numbers_are_not_used_up_and_drawn_anew() -> None:
    torch.manual_seed(0)
    graph = traced(lambda x: [nn.functional.dropout(x, 0.5)], [X()])
    first = graph(X())[0]
    torch.manual_seed(0)
    assert torch.equal(nn.functional.dropout(X(), 0.5), first)
    assert not all(torch.equal(graph(X())[0], first) for _ in range(5))


def test_a_value_that_is_asked_for_has_no_graph() -> None:
    with pytest.raises(RuntimeError, match="value"):
        traced(lambda x: [x * 2 if float(x.detach().sum()) > 0 else x], [X()])


def test_a_tensor_computed_before_is_no_part_of_a_graph() -> None:
    other = X() * 2
    with pytest.raises(NotTraceable, match="computed before"):
        traced(lambda x: [x * other], [X()])


def changes_data(x: Tensor) -> list[Tensor]:
    y = x * 2
    y.data = y.data + 1
    return [y]


def detaches_in_place(x: Tensor) -> list[Tensor]:
    return [(x * 2).detach_() + x]


@pytest.mark.parametrize("function", [changes_data, detaches_in_place])
def test_what_no_graph_can_say_is_refused(function: Callable[..., list[Tensor]]) -> None:
    with pytest.raises(NotTraceable, match="place among derivatives"):
        traced(function, [X()])


@pytest.mark.parametrize(
    ("looks", "why"),
    [
        (lambda x: x * max(x.detach().tolist()), "reads the values"),
        (lambda x: x * float(x.detach().numpy().max()), "reads the values"),
        (lambda x: x * float(np.asarray(x.detach()).max()), "reads the values"),
        (lambda x: x * x[x > 0].sum(), "the shape of what it computes"),
        (lambda x: x * torch.nonzero(x > 0).sum(), "the shape of what it computes"),
    ],
)
def test_values_are_not_read_past_the_graph(looks: Callable[[Tensor], Tensor], why: str) -> None:
    """What is read once would be taken for all that comes later."""
    with pytest.raises(NotTraceable, match=why):
        traced(lambda x: [looks(x)], [X()])


def test_indices_that_are_no_masks_are_taken() -> None:
    graph = traced(lambda x: [x[x.argsort()]], [X()])
    assert torch.equal(graph(-X())[0], -X().flip(0))


def test_hooks_into_gradients_are_refused() -> None:
    """Whatever they do to it: one that clips does nothing to small ones, such as a check sees."""

    def hooked(x: Tensor) -> list[Tensor]:
        y = x * 2
        if y.requires_grad:
            y.register_hook(lambda gradient: gradient.clamp(-1e9, 1e9))
        return [y]

    with pytest.raises(NotTraceable, match="hooks into the gradient"):
        traced(hooked, [X()])
