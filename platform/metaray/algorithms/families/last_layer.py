"""A network of which the end alone adapts: everything before sees the support set once, however many steps follow."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.inner_loop import STATISTICS, SupportLoss
from metaray.episodes.inputs import Inputs, device_of
from metaray.episodes.tensors import Examples
from metaray.models.batch_norm import Protocol, normalises_batches

_OPERATORS = "add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow", "lshift", "rshift", "and", "or", "xor"
IN_PLACE = {"__setitem__", "__set__", *(f"__i{operator}__" for operator in _OPERATORS)}
"""Methods that write to a tensor in place, besides those whose names end with an underscore."""


class LastLayer(NamedTuple):
    """The last layers of a network on a support set, which alone adapt.

    Attributes:
        loss: Support loss as a function of the network's parameters; features connect it to those before the last
            layers.
        statistics: Batch norm statistics of the support set under the inductive protocol, as `predict_at` takes them.
    """

    loss: SupportLoss
    statistics: Tensors


def last_layer(
    meta: Tensors, moving: Collection[str], support: Examples, context: Context, protocol: Protocol
) -> LastLayer | None:
    """Compute the features that reach the module whose parameters adapt, once for a support set.

    Args:
        meta: All parameters of the network.
        moving: Names of the parameters that adapt.
        support: Support set of the task.
        context: Circumstances of the call.
        protocol: Batch norm protocol, "inductive" or "transductive".

    Returns:
        The last layers on these features; None if features cannot be kept: no module has exactly these parameters, it
        normalises batches, it is not called exactly once, with one tensor, as the last thing that the network does,
        something else uses its parameters, the module writes to tensors in place, or the network draws random numbers,
        as dropout does.
    """
    name = _module_of(context.network, moving)
    if name is None:
        return None
    seen = context.compute(_Seen(context.bare(), name, tuple(moving), protocol), meta, support.x)
    if seen is None:
        return None
    features, statistics = seen
    loss = SupportLoss(Examples(features, support.y), context, _EndOf(name, tuple(moving)))
    return LastLayer(loss, {STATISTICS + layer: value for layer, value in statistics.items()})


@dataclass(frozen=True)
class _EndOf:
    """The output of a module at the end of a network, by the features that reach it.

    Attributes:
        name: Name of the module.
        moving: Names of its parameters in the network.
    """

    name: str
    moving: tuple[str, ...]

    def __call__(self, theta: Tensors, x: Inputs, context: Context) -> Tensor:
        own = {full.removeprefix(f"{self.name}."): theta[full] for full in self.moving}
        return context.call(context.network.get_submodule(self.name), own, x)


@dataclass(frozen=True)
class _Seen:
    """The region of a forward pass that is watched: the features that reach a module, if that is all there is to it.

    Attributes:
        context: Bare.
        name: Name of the module.
        moving: Names of its parameters in the network.
        protocol: Protocol of batch norm; under the inductive one statistics are recorded.
    """

    context: Context
    name: str
    moving: tuple[str, ...]
    protocol: Protocol

    def __call__(self, meta: Tensors, x: Inputs) -> tuple[Tensor, Tensors] | None:
        module, context = self.context.network.get_submodule(self.name), self.context
        statistics: Tensors = {}
        own, others = [meta[full] for full in self.moving], [meta[full] for full in meta.keys() - set(self.moving)]
        with _Watch(module, own, others, device_of(x)) as watch:
            if self.protocol == "transductive":
                output = context.forward(meta, x)
            else:
                output, statistics = context.forward_recording(meta, x)
        features = watch.features_before(output)
        return None if features is None else (features, statistics)


def _module_of(network: nn.Module, moving: Collection[str]) -> str | None:
    """The outermost module, the network aside, with these parameters and no others; None if it normalises batches."""
    for name, module in network.named_modules():
        if name and {f"{name}.{own}" for own, _ in module.named_parameters()} == set(moving):
            return None if normalises_batches(module) else name
    return None


class _Watch(TorchFunctionMode):
    """Sees the calls of a module, and whether something happens that a call of it alone would not repeat.

    That is where its parameters are used outside of it, as where weights are tied, or other ones within; where numbers
    are drawn at random, which are to be others at each step; and where tensors are changed in place from then on, or
    what came out is used. The state of the random numbers is left as it was found.

    Args:
        module: Module to watch.
        own: What stands for its parameters.
        others: What stands for all other parameters.
        device: Device that it computes on.
    """

    def __init__(
        self, module: nn.Module, own: Iterable[Tensor], others: Iterable[Tensor], device: torch.device
    ) -> None:
        super().__init__()
        self._module, self._device = module, device
        self._own, self._others = ({id(parameter) for parameter in some} for some in (own, others))
        self._calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._output: object = None
        self._inside, self._is_more = False, False

    def features_before(self, output: Tensor) -> Tensor | None:
        """The one tensor that made the module give `output`; None if that is not all that happened."""
        if self._is_more or len(self._calls) != 1:
            return None
        args, kwargs = self._calls[0]
        if self._output is not output or kwargs or len(args) != 1 or not isinstance(args[0], Tensor):
            return None
        return args[0]

    def __enter__(self) -> Self:
        self._random = _random_state(self._device)
        # The first before it, and the last behind: with hooks of the user's it is called again.
        self._handles = [
            self._module.register_forward_pre_hook(self._enter, prepend=True, with_kwargs=True),
            self._module.register_forward_hook(self._leave),
        ]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()
        if not all(map(torch.equal, self._random, _random_state(self._device))):
            self._is_more = True
            _set_random_state(self._random, self._device)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        leaves = tree_leaves((args, kwargs))
        strange = self._others if self._inside else self._own
        self._is_more |= any(id(leaf) in strange for leaf in leaves)
        if self._calls:
            self._is_more |= _changes_in_place(func, kwargs or {})
            self._is_more |= not self._inside and any(leaf is self._output for leaf in leaves)
        return func(*args, **(kwargs or {}))

    def _enter(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._calls.append((args, kwargs))
        self._inside = True

    def _leave(self, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        self._output, self._inside = output, False


def _changes_in_place(func: Callable[..., Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a function of torch writes to what it is given, as `relu_`, `+=` and `relu(x, inplace=True)` do."""
    name = getattr(func, "__name__", "")
    if name.endswith("_") and (not name.endswith("__") or name in IN_PLACE):
        return True
    return bool(kwargs.get("inplace")) or kwargs.get("out") is not None


def _random_state(device: torch.device) -> list[Tensor]:
    """State of what draws random numbers on a device, that of the CPU first."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _set_random_state(state: Sequence[Tensor], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    for one in state[1:]:
        torch.cuda.set_rng_state(one, device)
