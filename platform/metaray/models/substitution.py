"""A module called with other tensors in the place of its parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


def called_with(
    module: nn.Module,
    parameters: Mapping[str, Tensor],
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """What a module gives with tensors in the place of its parameters; afterwards it has its own again.

    A parameter that several modules have is replaced in all of them, and a module that has several names in the network
    once. By itself torch's `functional_call` takes each of these names for a place of its own, and leaves the
    replacement behind there.

    Args:
        module: Module to call.
        parameters: Tensors by the names of `named_parameters`; the module's other parameters stay as they are.
        args: Arguments of the call.
        kwargs: Keyword arguments of the call.
    """
    tensors = {**parameters, **_by_place(module, parameters)}
    return functional_call(module, tensors, tuple(args), dict(kwargs or {}), tie_weights=False)


def _by_place(module: nn.Module, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by one name of each place where a parameter is held."""
    found: dict[str, Tensor] = {}
    of: dict[int, Tensor] = {}
    for prefix, part in module.named_modules():
        for own, parameter in part._parameters.items():
            if parameter is None:
                continue
            name = f"{prefix}.{own}" if prefix else own
            # Names are those of the first place, so that the others come after it.
            if name in parameters:
                of[id(parameter)] = parameters[name]
            if id(parameter) in of:
                found[name] = of[id(parameter)]
    return found
