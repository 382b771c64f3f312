"""What algorithms with gradient steps on the support set share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.inner_optimizers import PLAIN, InnerOptimizer, State
from metaray.algorithms.growth import STATISTICS as STATISTICS
from metaray.episodes.inputs import Inputs
from metaray.episodes.tensors import Examples
from metaray.errors import InputError
from metaray.models.batch_norm import Protocol

Rates = Mapping[str, float | Tensor]

Output = Callable[[Tensors, Inputs, Context], Tensor]
"""Function that maps parameters and inputs [n, ...] to the network's outputs [n, outputs].

Two such functions that compute the same compare equal.
"""


def of_network(theta: Tensors, x: Inputs, context: Context) -> Tensor:
    """The output of the network itself."""
    return context.forward(theta, x)


@dataclass(frozen=True)
class SupportLoss:
    """The support loss L_s as a function of parameters, which also names what else it depends on.

    Attributes:
        support: Support set of the task.
        context: Circumstances of the call.
        output: Function that computes the network's output, from which the loss is computed.
    """

    support: Examples
    context: Context
    output: Output = of_network

    def __call__(self, theta: Tensors) -> Tensor:
        """The mean loss at `theta`."""
        return self.context.loss(self.output(theta, self.support.x, self.context), self.support.y)


def support_loss(support: Examples, context: Context, *, second_order: bool = False) -> SupportLoss:
    """L_s as a function of the network's parameters, whose gradient is differentiated again or not."""
    return SupportLoss(support, context.for_inner_steps(second_order=second_order))


@dataclass(frozen=True)
class InnerStep:
    """One inner step on a `SupportLoss`, as a region that can be compiled.

    Attributes:
        context: Circumstances of the step, without outer step and runner.
        inner: Circumstances of the loss, without outer step and runner.
        output: Function that computes the network's output, from which the loss is computed.
        second_order: Whether the result is also connected through the inner gradient.
        optimizer: Optimiser of the inner step.
    """

    context: Context
    inner: Context
    output: Output
    second_order: bool
    optimizer: InnerOptimizer = PLAIN

    def __call__(self, theta: Tensors, rates: Rates, support: Examples, state: State) -> tuple[Tensors, State]:
        """The parameters that have moved, and what the optimiser remembers."""
        loss = SupportLoss(support, self.inner, self.output)
        return _moved(loss, theta, state, rates, self.context, self.optimizer, second_order=self.second_order)


def descended(
    loss: Callable[[Tensors], Tensor],
    theta: Tensors,
    rates: Rates,
    context: Context,
    *,
    optimizer: InnerOptimizer,
    steps: int,
    second_order: bool,
) -> Tensors:
    """The parameters after several inner steps by `descend`."""
    state = optimizer.begin({name: theta[name] for name in rates})
    for _ in range(steps):
        theta, state = descend(loss, theta, state, rates, context, optimizer=optimizer, second_order=second_order)
    return theta


def descend(
    loss: Callable[[Tensors], Tensor],
    theta: Tensors,
    state: State,
    rates: Rates,
    context: Context,
    *,
    optimizer: InnerOptimizer,
    second_order: bool,
) -> tuple[Tensors, State]:
    """Take one inner step: theta - alpha * direction for the parameters that have a rate; the others stay.

    The direction is the inner optimiser's, of grad loss(theta).

    Args:
        loss: A scalar function of all of `theta`.
        theta: Parameters at which the step begins.
        state: State of the inner optimiser.
        rates: Inner learning rates alpha, by parameter name.
        context: Circumstances of the call; in training the result is connected to `theta`.
        optimizer: Optimiser of the inner step.
        second_order: Whether the result is also connected through the inner gradient.

    Returns:
        All parameters, and the optimiser's new state.
    """
    if context.run is None or not isinstance(loss, SupportLoss):
        moved, state = _moved(loss, theta, state, rates, context, optimizer, second_order=second_order)
        return {**theta, **moved}, state
    step = InnerStep(context.bare(), loss.context.bare(), loss.output, second_order, optimizer)
    moved, state = context.compute(step, theta, _as_tensors(rates, theta), loss.support, state)
    return {**theta, **moved}, state


def _moved(
    loss: Callable[[Tensors], Tensor],
    theta: Tensors,
    state: State,
    rates: Rates,
    context: Context,
    optimizer: InnerOptimizer,
    *,
    second_order: bool,
) -> tuple[Tensors, State]:
    moving = {name: theta[name] for name in rates}
    gradient = context.gradient(
        lambda some: loss({**theta, **some}), moving, differentiable=second_order and context.training
    )
    directions, state = optimizer.directions(gradient, state)
    moved = {name: value - rates[name] * directions[name] for name, value in moving.items()}
    if not context.training:
        moved = {name: value.detach() for name, value in moved.items()}
    return moved, state


def _as_tensors(rates: Rates, theta: Tensors) -> Tensors:
    """A schedule changes rates from step to step, but not what is computed with them."""
    return {
        name: rate
        if isinstance(rate, Tensor)
        else torch.full((), rate, dtype=theta[name].dtype, device=theta[name].device)
        for name, rate in rates.items()
    }


def steps_of(inner_steps: int, context: Context) -> int:
    """Number of inner steps to take: the context's, if it has one, otherwise `inner_steps`."""
    return inner_steps if context.inner_steps is None else context.inner_steps


def with_statistics(theta: Tensors, support: Examples, context: Context, protocol: Protocol) -> Tensors:
    """Adapted parameters for `predict_at`: theta', and under inductive batch norm the support statistics there."""
    if protocol == "transductive":
        return theta
    _, statistics = context.forward_recording(theta, support.x)
    return {**theta, **{STATISTICS + name: value for name, value in statistics.items()}}


def split_statistics(adapted: Tensors) -> tuple[Tensors, Tensors]:
    """Split the result of `with_statistics` into theta' and the statistics, if there are any."""
    theta = {name: value for name, value in adapted.items() if not name.startswith(STATISTICS)}
    kept = {name.removeprefix(STATISTICS): value for name, value in adapted.items() if name.startswith(STATISTICS)}
    return theta, kept


def predict_at(adapted: Tensors, x: Inputs, context: Context) -> Tensor:
    """The network's output at theta'."""
    theta, statistics = split_statistics(adapted)
    return context.forward(theta, x, statistics)


def matching(pattern: str, names: list[str], what: str, network: nn.Module) -> list[str]:
    """The parameter names that match a pattern (`fnmatch`).

    Args:
        pattern: Pattern, for instance "head.*".
        names: Names of the parameters that are trained.
        what: What the pattern is for, for messages.
        network: Network, whose frozen parameters count as those that do not match.

    Raises:
        InputError: If no name matches, or every name does, so that nothing is left of the other kind.
    """
    found = [name for name in names if fnmatchcase(name, pattern)]
    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    stiff = [name for name in frozen if fnmatchcase(name, pattern)]
    if not found and stiff:
        raise InputError(
            f"{what} {pattern!r} fits frozen parameters of the network alone: {', '.join(stiff)}. Let them require "
            f"grad, or name others of: {', '.join(names)}"
        )
    if not found or len(found) == len(names) + len(frozen):
        extent = "every" if found else "no"
        last = names[-1].rpartition(".")[0]
        remedy = f" The last layer is --set algorithm.{what}='{last}.*'." if last else ""
        raise InputError(
            f"{what} {pattern!r} fits {extent} parameter of the network.{remedy} Parameters: {', '.join(names)}"
        )
    return found
