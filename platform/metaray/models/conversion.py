"""A user's network made fit for inner loops: its batch norm layers become ours, what could not work is refused.

A batch norm with running statistics is frozen when none of its own parameters requires grad; if it has none
(`affine=False`), when none does in the innermost module around it that has some. Frozen, it keeps the statistics that
it was stored with. Any other has none any more: it normalises as the protocol of the experiment says.
"""

from collections.abc import Iterator
from typing import Any, cast

from torch import nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.lazy import LazyModuleMixin

from metaray.errors import InputError
from metaray.models.batch_norm import EpisodicBatchNorm, FrozenBatchNorm

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, SyncBatchNorm, _BatchNorm)
TENSORS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
SETTING_UP = {
    *("__init__", "__repr__", "extra_repr", "_check_input_dim", "reset_parameters", "reset_running_stats"),
    *("__setstate__", "_load_from_state_dict", "_save_to_state_dict", "load_state_dict", "state_dict"),
}
"""Methods that a subclass of a batch norm may override without changing what it computes."""


def convert(network: nn.Module) -> nn.Module:
    """Convert torch's batch norm layers in a network to metaray's, in place; hooks and references stay valid.

    Raises:
        InputError: If a module does not know its shape yet, is not registered as a submodule, is a batch norm of the
            user's own making, or is an `nn.InstanceNorm*` with running statistics; the message names it.
    """
    modules = dict(network.named_modules())
    for name, module in modules.items():
        _check(name, module, set(modules.values()))
    layers = {name: module for name, module in modules.items() if isinstance(module, _BatchNorm)}
    frozen = {name for name in layers if _is_frozen(network, name)}
    for name, layer in layers.items():
        _become(layer, frozen=name in frozen)
    return network


def shown(name: str, module: nn.Module) -> str:
    """A module of a network, for messages."""
    kind = type(module).__name__
    return f"module {name!r} ({kind})" if name else f"the network itself ({kind})"


def _check(name: str, module: nn.Module, known: set[nn.Module]) -> None:
    what = shown(name, module)
    if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
        raise InputError(f"{what} does not know its shape yet: send a batch through the network where it is built")
    for attribute, value in vars(module).items():
        if not attribute.startswith("_") and any(hidden not in known for hidden in _modules_in(value)):
            raise InputError(
                f"{what} keeps modules in {attribute!r}, a {type(value).__name__}, where torch does not see their "
                "parameters, so that they would never be trained: use torch.nn.ModuleList or torch.nn.ModuleDict "
                "(and requires_grad_(False) for what is not to be trained)"
            )
    if isinstance(module, _BatchNorm) and (own := _own_behaviour(module)):
        raise InputError(
            f"{what} is a batch norm with {', '.join(own)} of its own, which would be lost, as metaray puts one "
            "without running statistics in its place: put what it adds into a module around a plain "
            "torch.nn.BatchNorm*, or derive it from metaray.models.batch_norm.EpisodicBatchNorm"
        )
    if isinstance(module, _InstanceNorm) and module.track_running_stats:
        raise InputError(f"{what} keeps running statistics: set track_running_stats=False")


def _modules_in(value: Any) -> Iterator[nn.Module]:
    """The modules in a plain container, nested or not."""
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _modules_in(item)


def _own_behaviour(layer: _BatchNorm) -> list[str]:
    """Where a batch norm is not torch's own: methods in place of torch's, and further tensors or modules."""
    mro = type(layer).__mro__
    base = next(cls for cls in mro if cls in PLAIN)
    defined = {name: value for cls in mro[: mro.index(base)] for name, value in vars(cls).items()} | vars(layer)
    methods = {name for name, value in defined.items() if callable(value) or isinstance(value, property)}
    added = {*layer._parameters, *layer._buffers} - TENSORS | layer._modules.keys()
    return sorted({name for name in methods - SETTING_UP if hasattr(base, name) or name in TENSORS} | added)


def _is_frozen(network: nn.Module, name: str) -> bool:
    if network.get_submodule(name)._buffers.get("running_mean") is None:
        return False
    while True:
        around = [parameter.requires_grad for parameter in network.get_submodule(name).parameters()]
        if around or not name:
            return bool(around) and not any(around)
        name = name.rpartition(".")[0]


def _become(layer: _BatchNorm, *, frozen: bool) -> None:
    """Change the class of a layer, and what it holds besides scale and shift."""
    running, module = layer._buffers.copy(), cast(nn.Module, layer)
    layer._buffers.clear()
    if frozen:
        layer._buffers.update({name: running[name] for name in ("running_mean", "running_var")})
        module.__class__ = FrozenBatchNorm
        return
    module.__class__ = EpisodicBatchNorm
    assert isinstance(module, EpisodicBatchNorm)
    module.channels, module.statistics, module.recorded, module.record = layer.num_features, None, None, False
