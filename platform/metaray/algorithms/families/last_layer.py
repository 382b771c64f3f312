"""A network of which the end alone adapts: everything before sees the support set once, however many steps follow."""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from torch import Tensor, nn

from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.inner_loop import STATISTICS
from metaray.episodes.tensors import Examples
from metaray.models.batch_norm import Protocol, normalises_batches


class LastLayer(NamedTuple):
    """The end of a network on a support set.

    Attributes:
        loss: the support loss as a function of the network's parameters, connected to those before the end by the
            features that were computed of them.
        statistics: under inductive batch norm those of the support set, named as `predict_at` needs them.
    """

    loss: Callable[[Tensors], Tensor]
    statistics: Tensors


def last_layer(
    meta: Tensors, moving: Collection[str], support: Examples, context: Context, protocol: Protocol
) -> LastLayer | None:
    """Send a support set through a network, and keep what reaches the module whose parameters adapt.

    Args:
        meta: all parameters of the network.
        moving: names of those that adapt.
        support: of the task.
        context: of the call.
        protocol: of batch norm.

    Returns:
        None where nothing can be kept: no module has these parameters and no others, it shares one, it normalises
        batches, or it is not called once, with one tensor, as the last thing that the network does.
    """
    name = _module_of(context.network, moving)
    if name is None:
        return None
    module = context.network.get_submodule(name)
    statistics: Tensors = {}
    calls: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []
    handle = module.register_forward_hook(lambda _, *call: calls.append(call), with_kwargs=True)
    try:
        if protocol == "transductive":
            output = context.forward(meta, support.x)
        else:
            output, statistics = context.forward_recording(meta, support.x)
    finally:
        handle.remove()
    if len(calls) != 1:
        return None
    (args, kwargs, found) = calls[0]
    if found is not output or kwargs or len(args) != 1 or not isinstance(args[0], Tensor):
        return None
    (features,) = args

    def loss(theta: Tensors) -> Tensor:
        own = {full.removeprefix(f"{name}."): theta[full] for full in moving}
        return context.loss(context.call(module, own, features), support.y)

    return LastLayer(loss, {STATISTICS + layer: value for layer, value in statistics.items()})


def _module_of(network: nn.Module, moving: Collection[str]) -> str | None:
    """The outermost module, the network aside, whose parameters are these, which nothing else in the network has."""
    wanted, everywhere = set(moving), list(network.named_parameters(remove_duplicate=False))
    for name, module in network.named_modules():
        if not name or {f"{name}.{own}" for own, _ in module.named_parameters()} != wanted:
            continue
        own = {id(parameter) for parameter in module.parameters()}
        shared = any(id(parameter) in own and not full.startswith(f"{name}.") for full, parameter in everywhere)
        return None if shared or normalises_batches(module) else name
    return None
