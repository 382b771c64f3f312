"""Which module of a network lacks a derivative that an algorithm needs, and which algorithms would do without."""

import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.func import functional_call

from metaray.algorithms import ALGORITHMS
from metaray.algorithms.context import Context, Tensors
from metaray.config import replace
from metaray.models.written_out import written_out
from metaray.training.experiment import Experiment
from metaray.training.outer_loop import initial_state

MISSING = re.compile(r"derivative for '?(?:aten::)?([\w.]+)(?:: \w+)?'? is not implemented")


class Call(NamedTuple):
    """One call of a module, as a forward pass made it."""

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def where(self) -> str:
        """For messages."""
        kind = type(self.module).__name__
        return f"in module {self.name!r} ({kind})" if self.name else f"in the network itself ({kind})"


class Fault(NamedTuple):
    """A module that cannot be differentiated twice.

    Attributes:
        call: of the module.
        operation: whose derivative is missing, by torch's name or that of an autograd function; None if torch does not
            say.
        order: 1 if it is the first derivative that is missing.
    """

    call: Call
    operation: str | None
    order: int


def operation_of(error: RuntimeError) -> str | None:
    """The operation whose derivative torch misses; None if that is not what the error is about."""
    found = MISSING.search(str(error))
    return None if found is None else f"aten::{found[1]}"


def goes_through_custom_functions(context: Context, x: Tensor) -> bool:
    """Whether the network goes through some `torch.autograd.Function`."""
    output = context.with_batched(False).forward(dict(context.network.named_parameters()), x)
    return any(_custom_nodes(output))


def find_fault(context: Context, x: Tensor) -> Fault | None:
    """The first module that cannot be differentiated twice; of those that contain one another, the innermost.

    Args:
        context: of training; with `batched`, modules are differentiated under `torch.vmap`.
        x: a batch that the network takes.
    """
    calls: list[Call] = []

    def recorder(name: str) -> Callable[..., None]:
        return lambda module, args, kwargs, _: calls.append(Call(name, module, args, kwargs))

    network = context.network
    hooks = [m.register_forward_hook(recorder(name), with_kwargs=True) for name, m in network.named_modules()]
    try:
        with torch.no_grad():
            context.with_batched(False).forward(dict(network.named_parameters()), x)
    finally:
        for hook in hooks:
            hook.remove()
    # Hooks run as modules return, so children come before their parents.
    differentiate = _mapped_fault if context.batched else _fault
    with written_out() if context.batched else nullcontext():
        return next((fault for fault in map(differentiate, calls) if fault is not None), None)


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
    leaves = {name: tensor.detach().requires_grad_(_is_real(tensor)) for name, tensor in _tensors(call).items()}
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
    leaves = {name: tensor.detach() for name, tensor in _tensors(call).items()}
    parameters = dict(call.module.named_parameters())

    def slope(real: Tensors, other: Tensors) -> Tensor:
        gradients = torch.func.grad(lambda at: _loss(call, other | at))(real)
        return torch.stack([gradient.square().sum() for gradient in gradients.values()]).sum()

    def twice(inputs: Tensors) -> Tensors:
        tensors = leaves | inputs
        real = {name: tensor for name, tensor in tensors.items() if _is_real(tensor)}
        return torch.func.grad(slope)(real, tensors) if real else {}

    try:
        mapped = {name: tensor[None] for name, tensor in leaves.items() if name not in parameters}
        if mapped:
            torch.vmap(twice, randomness="different")(mapped)
    except RuntimeError as error:
        return Fault(call, operation_of(error), 2)
    return None


def _tensors(call: Call) -> Tensors:
    """Parameters by their names, inputs by `call` and their place or keyword."""
    inputs = {f"call.{key}": value for key, value in [*enumerate(call.args), *call.kwargs.items()]}
    return dict(call.module.named_parameters()) | {k: v for k, v in inputs.items() if isinstance(v, Tensor)}


def _loss(call: Call, tensors: Tensors) -> Tensor:
    """The sum of the squares of all that a module returns."""
    args = tuple(tensors.get(f"call.{i}", value) for i, value in enumerate(call.args))
    kwargs = {key: tensors.get(f"call.{key}", value) for key, value in call.kwargs.items()}
    parameters = {name: tensors[name] for name, _ in call.module.named_parameters()}
    outputs = [t for t in _flat(functional_call(call.module, parameters, args, kwargs)) if _is_real(t)]
    return torch.stack([output.square().sum() for output in outputs or [torch.zeros(())]]).sum()


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
