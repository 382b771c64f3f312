"""What algorithms with gradient steps on the support set share."""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

from torch import Tensor, nn

from metaray.algorithms.context import Context, Tensors
from metaray.episodes.inputs import Inputs
from metaray.episodes.tensors import Examples
from metaray.errors import InputError
from metaray.models.batch_norm import Protocol

STATISTICS = "statistics:"

Rates = Mapping[str, float | Tensor]


def support_loss(support: Examples, context: Context, *, second_order: bool = False) -> Callable[[Tensors], Tensor]:
    """L_s as a function of the network's parameters, whose gradient is differentiated again or not."""
    context = context.for_inner_steps(second_order=second_order)
    return lambda parameters: context.loss(context.forward(parameters, support.x), support.y)


def descend(
    loss: Callable[[Tensors], Tensor], theta: Tensors, rates: Rates, context: Context, *, second_order: bool
) -> Tensors:
    """theta - alpha * grad loss(theta) for the parameters that have a rate; the others stay.

    Args:
        loss: a scalar function of all of `theta`.
        theta: where.
        rates: alpha by name.
        context: while it trains, the result is connected to `theta`; else it is not.
        second_order: connected through the gradient as well.
    """
    moving = {name: theta[name] for name in rates}
    gradient = context.gradient(
        lambda some: loss({**theta, **some}), moving, differentiable=second_order and context.training
    )
    moved = {name: value - rates[name] * gradient[name] for name, value in moving.items()}
    if not context.training:
        moved = {name: value.detach() for name, value in moved.items()}
    return {**theta, **moved}


def steps_of(inner_steps: int, context: Context) -> int:
    """How many inner steps to take: the context's number, where it has one."""
    return inner_steps if context.inner_steps is None else context.inner_steps


def with_statistics(theta: Tensors, support: Examples, context: Context, protocol: Protocol) -> Tensors:
    """What `predict_at` needs: theta', and under inductive batch norm the support set's statistics there."""
    if protocol == "transductive":
        return theta
    _, statistics = context.forward_recording(theta, support.x)
    return {**theta, **{STATISTICS + name: value for name, value in statistics.items()}}


def split_statistics(adapted: Tensors) -> tuple[Tensors, Tensors]:
    """The inverse of `with_statistics`: theta' and the statistics, if there are any."""
    theta = {name: value for name, value in adapted.items() if not name.startswith(STATISTICS)}
    kept = {name.removeprefix(STATISTICS): value for name, value in adapted.items() if name.startswith(STATISTICS)}
    return theta, kept


def predict_at(adapted: Tensors, x: Inputs, context: Context) -> Tensor:
    """The network's output at theta'."""
    theta, statistics = split_statistics(adapted)
    return context.forward(theta, x, statistics)


def matching(pattern: str, names: list[str], what: str, network: nn.Module) -> list[str]:
    """The names that fit a pattern of `fnmatch`.

    Args:
        pattern: for instance "head.*".
        names: of the parameters that are trained.
        what: the pattern is for.
        network: whose frozen parameters are of the other kind, whether they fit or not.

    Raises:
        InputError: if none does, or if all do, so that nothing is left of the other kind.
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
