"""Which module of a network lacks a derivative that an algorithm needs, and which algorithms would do without."""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction

from metaray.algorithms import ALGORITHMS
from metaray.algorithms.context import Context, Tensors
from metaray.config import replace
from metaray.episodes.inputs import Inputs
from metaray.experiment.experiment import Experiment
from metaray.models.conversion import shown
from metaray.models.model import trainable
from metaray.models.substitution import called_with
from metaray.models.written_out import written_out
from metaray.training.outer_loop import initial_state

INPUT = "call."
MISSING = re.compile(r"derivative for '?(?:aten::)?([\w.]+)(?:: \w+)?'? is not implemented")


class Call(NamedTuple):
    """One call of a module, as a forward pass made it."""

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def where(self) -> str:
        """The place of the fault, for messages."""
        return f"in {shown(self.name, self.module)}"


class Fault(NamedTuple):
    """A module that cannot be differentiated twice.

    Attributes:
        call: Call of the module.
        operation: Operation whose derivative is missing, by torch's name or that of an autograd function; None if torch
            does not say.
        order: 1 if it is the first derivative that is missing.
    """

    call: Call
    operation: str | None
    order: int


def operation_of(error: RuntimeError) -> str | None:
    """The operation whose derivative torch misses; None if that is not what the error is about."""
    found = MISSING.search(str(error))
    return None if found is None else f"aten::{found[1]}"


def goes_through_custom_functions(context: Context, x: Inputs) -> bool:
    """Whether the network goes through some `torch.autograd.Function`."""
    output = context.with_batched(False).forward(dict(trainable(context.network)), x)
    return any(_custom_nodes(output))


def find_fault(context: Context, x: Inputs) -> Fault | None:
    """The first module that cannot be differentiated twice; of those that contain one another, the innermost.

    Args:
        context: Circumstances of training; with `batched`, modules are differentiated under `torch.vmap`.
        x: A batch that the network takes.
    """
    differentiate = _mapped_fault if context.batched else _fault
    with written_out() if context.batched else nullcontext():
        return next((fault for fault in map(differentiate, _calls(context, x)) if fault is not None), None)


def find_difference(context: Context, one: Inputs, other: Inputs, *, order: int, tolerance: float) -> Call | None:
    """The first module, the innermost, that has other derivatives under `torch.vmap` than by itself.

    Args:
        context: Circumstances of training.
        one: A batch that the network takes.
        other: Another of the same shape.
        order: Highest order of the derivatives that matter, 1 or 2.
        tolerance: Relative to the size of a derivative.
    """
    for pair in zip(_calls(context, one), _calls(context, other), strict=False):
        inputs = [_tensors(call) for call in pair]
        if any(inputs[0][name].shape != tensor.shape for name, tensor in inputs[1].items()):
            continue
        try:
            if any(gap > tolerance for gap in _gaps(pair[0], inputs, order)):
                return pair[0]
        except RuntimeError:
            continue  # what cannot be differentiated at all is found by `find_fault`
    return None


def _gaps(call: Call, inputs: list[Tensors], order: int) -> Iterator[float]:
    """How far derivatives under `torch.vmap` are from those one by one: with the last one taken outside, and inside."""

    def last(function: Callable[[Tensors], Tensor], at: Tensors) -> Tensors:
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in at.items() if _is_real(tensor)}
        torch.manual_seed(0)
        found = torch.autograd.grad(function(at | leaves).sum(), list(leaves.values()), materialize_grads=True)
        return dict(zip(leaves, found, strict=True))

    def one(tensors: Tensors) -> Tensor:
        return _slope(call, tensors) if order == 2 else _loss(call, tensors)

    stacked = {name: torch.stack([tensors[name] for tensors in inputs]) for name in inputs[0]}
    alone = [last(one, tensors) for tensors in inputs]
    expected = {name: torch.stack([each[name] for each in alone]) for name in alone[0]}
    with written_out():
        yield relative_difference(last(torch.vmap(one, randomness="same"), stacked), expected)
        torch.manual_seed(0)
        inside = torch.vmap(lambda tensors: _derivatives(call, tensors, order), randomness="same")(stacked)
        yield relative_difference(inside, expected)


def relative_difference(found: Tensors, expected: Tensors) -> float:
    """The largest over all tensors, each relative to its norm, or to a thousandth of that of all together."""
    norms = {name: float(tensor.detach().double().norm()) for name, tensor in expected.items()}
    least = max(1e-3 * math.hypot(*norms.values()), torch.finfo(torch.float64).tiny)
    gaps = {name: float((found[name].detach() - tensor.detach()).double().norm()) for name, tensor in expected.items()}
    return max((gap / max(norms[name], least) for name, gap in gaps.items()), default=0.0)


def _calls(context: Context, x: Inputs) -> list[Call]:
    """The calls of all modules in a forward pass; modules return after their children, so these come first."""
    calls: list[Call] = []

    def recorder(name: str) -> Callable[..., None]:
        return lambda module, args, kwargs, _: calls.append(Call(name, module, args, kwargs))

    network = context.network
    hooks = [m.register_forward_hook(recorder(name), with_kwargs=True) for name, m in network.named_modules()]
    try:
        # With gradients, which tell what depends on parameters.
        context.with_batched(False).forward(dict(trainable(network)), x)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def first_order_kinds(experiment: Experiment) -> list[str]:
    """The algorithms that could train `experiment` without second derivatives, those most like its own first."""
    found = []
    for kind, cls in ALGORITHMS.items():
        if cls().differentiates_twice:
            continue
        try:
            trained = initial_state(replace(experiment, algorithm=cls()), torch.device("cpu")).meta
        except (RuntimeError, TypeError, ValueError):  # the model or the source does not suit it
            continue
        if trained:
            found.append(kind)
    inner_loop = experiment.algorithm.gradient_steps
    return sorted(found, key=lambda kind: ALGORITHMS[kind].gradient_steps != inner_loop)


def _fault(call: Call) -> Fault | None:
    """Differentiate twice by autograd."""
    leaves = {name: tensor.detach().requires_grad_(tensor.requires_grad) for name, tensor in _tensors(call).items()}
    lost: list[str] = []
    order = 1
    try:
        loss = _loss(call, leaves)
        for node in _custom_nodes(loss):
            node.register_hook(_watch(node, lost))
        wanted = [tensor for tensor in leaves.values() if tensor.requires_grad]
        if not loss.requires_grad:
            return None
        slopes = torch.autograd.grad(loss, wanted, create_graph=True, allow_unused=True)
        order = 2
        bent = [slope.square().sum() for slope in slopes if slope is not None and slope.requires_grad]
        if bent:
            torch.autograd.grad(torch.stack(bent).sum(), wanted, allow_unused=True)
    except RuntimeError as error:
        return Fault(call, lost[0] if lost else operation_of(error), order)
    return Fault(call, lost[0], 2) if lost else None


def _mapped_fault(call: Call) -> Fault | None:
    """The same under `torch.vmap`, over the inputs: parameters are the same for all episodes at first."""
    tensors = _tensors(call)
    mapped = {name: tensor.detach()[None] for name, tensor in tensors.items() if name.startswith(INPUT)}
    fixed = {name: tensor.detach() for name, tensor in tensors.items() if not name.startswith(INPUT)}
    try:
        if mapped:
            torch.vmap(lambda inputs: _derivatives(call, fixed | inputs, 2), randomness="different")(mapped)
    except RuntimeError as error:
        return Fault(call, operation_of(error), 2)
    return None


def _derivatives(call: Call, tensors: Tensors, order: int) -> Tensors:
    """Derivatives of `_loss` with respect to all real tensors, or in second order of `_slope`."""
    function = _slope if order == 2 else _loss
    real = {name: tensor for name, tensor in tensors.items() if _is_real(tensor)}
    found: Tensors = torch.func.grad(lambda at: function(call, tensors | at))(real) if real else {}
    return found


def _slope(call: Call, tensors: Tensors) -> Tensor:
    """The sum of the squares of the derivatives of `_loss`."""
    gradients = _derivatives(call, tensors, 1).values()
    return torch.stack([gradient.square().sum() for gradient in gradients]).sum()


def _tensors(call: Call) -> Tensors:
    """Trained parameters by their names, inputs by `call` and their place or keyword."""
    inputs = {f"{INPUT}{key}": value for key, value in [*enumerate(call.args), *call.kwargs.items()]}
    return dict(trainable(call.module)) | {k: v for k, v in inputs.items() if isinstance(v, Tensor)}


def _loss(call: Call, tensors: Tensors) -> Tensor:
    """A weighted sum of the squares of all that a module returns: that of norms hardly changes without weights."""
    args = tuple(tensors.get(f"{INPUT}{i}", value) for i, value in enumerate(call.args))
    kwargs = {key: tensors.get(f"{INPUT}{key}", value) for key, value in call.kwargs.items()}
    parameters = {name: tensors[name] for name in trainable(call.module)}
    outputs = [t for t in _flat(called_with(call.module, parameters, args, kwargs)) if _is_real(t)]
    weights = [torch.linspace(0.5, 1.5, t.numel(), dtype=t.dtype, device=t.device).view(t.shape) for t in outputs]
    squares = [(weight * t.square()).sum() for weight, t in zip(weights, outputs, strict=True)]
    return torch.stack(squares or [torch.zeros(())]).sum()


def _flat(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _flat(item)


def _is_real(tensor: Tensor) -> bool:
    return tensor.is_floating_point()


def _custom_nodes(output: Tensor) -> Iterator[BackwardCFunction]:
    """The nodes of a graph that some `torch.autograd.Function` made."""
    seen, waiting = set(), [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [before for before, _ in node.next_functions]
        if isinstance(node, BackwardCFunction):
            yield node


def _watch(node: BackwardCFunction, lost: list[str]) -> Callable[..., None]:
    """A hook that notes a custom backward whose result is cut off from what it came from.

    That of `once_differentiable` leads to a node that would raise an error, but that no derivative ever reaches; one
    that computes outside of autograd gives a constant. In second order both are wrong without a word.
    """

    def hook(results: tuple[Tensor | None, ...], given: tuple[Tensor | None, ...]) -> None:
        if not any(tensor is not None and tensor.requires_grad for tensor in given):
            return
        for result in results:
            if result is None or (not result.requires_grad and not result.any()):
                continue  # a gradient of zero is a constant indeed
            if not result.requires_grad or type(result.grad_fn).__name__ == "Error":
                lost.append(type(node).__name__.removesuffix("Backward"))

    return hook
