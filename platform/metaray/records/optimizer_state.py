"""The optimiser's state as tensors and JSON, and back to the same bits.

What torch's own optimisers keep, tensors by parameter, lies in the checkpoint's safetensors as
`optimizer/KEY/PARAMETER`. Any other state, and what an optimiser changes in its parameter groups, is described by a
table in `optimizer.json`, whose tensors lie beside the others as `optimizer-state/NUMBER`.
"""

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metaray.algorithms.context import Tensors
from metaray.manifest import Damaged
from metaray.optimizers.stepping import FULL_RATE
from metaray.records.nested import WRITABLE, Reader, Writer

CPU = torch.device("cpu")
SIMPLE, FORMAT = "optimizer", 1
DESCRIBED = ("params", "lr", "weight_decay", FULL_RATE)
"""Keys of a parameter group that follow from the experiment and the step."""


class OptimizerState(NamedTuple):
    """The state that an optimiser resumes from.

    Attributes:
        state: State by parameter, or by whatever else the optimiser uses as a key.
        groups: Values of each parameter group that differ from the defaults.
    """

    state: dict[Any, Any]
    groups: list[dict[Any, Any]]

    def put(self, optimizer: torch.optim.Optimizer) -> None:
        """Load the state into an optimiser."""
        optimizer.state.clear()
        optimizer.state.update(self.state)
        for group, changed in zip(optimizer.param_groups, self.groups, strict=True):
            group.update({key: value for key, value in optimizer.defaults.items() if key not in DESCRIBED})
            group.update(changed)


def pack_optimizer(optimizer: torch.optim.Optimizer, meta: Tensors) -> tuple[Tensors, dict[str, Any] | None]:
    """The state of an optimiser as tensors by name, and a table in JSON types; None if no table is needed.

    Raises:
        InputError: If the state holds something other than tensors, numbers and text, or tensors that share memory.
    """
    changed = [_changed(group, optimizer.defaults) for group in optimizer.param_groups]
    simple = None if any(changed) else _simple(optimizer, meta)
    if simple is not None:
        return simple, None
    writer = Writer(meta)
    names = {id(parameter): name for name, parameter in meta.items()}
    state = []
    for key, value in optimizer.state.items():
        name = names.get(id(key), f"{key!r:.40}")
        state.append([writer.write(key, f"the key {name} of the state"), writer.write(value, f"state[{name}]")])
    groups = [writer.write(group, f"param_groups[{number}]") for number, group in enumerate(changed)]
    return writer.tensors, {"format": FORMAT, "state": state, "groups": groups, "nodes": writer.nodes}


def unpack_optimizer(
    tensors: Tensors, table: Mapping[str, Any] | None, optimizer: torch.optim.Optimizer, meta: Tensors
) -> OptimizerState:
    """Read the state of an optimiser: the inverse of `pack_optimizer`; nothing is modified.

    Args:
        tensors: Tensors of a checkpoint, which may include others.
        table: Contents of `optimizer.json`; None if there is none.
        optimizer: Freshly built optimiser.
        meta: Meta-parameters that the optimiser steps.

    Raises:
        Damaged: If `pack_optimizer` never returns such values for this optimiser.
    """
    count = len(optimizer.param_groups)
    if table is None:
        return OptimizerState(_from_simple(tensors, meta), [{} for _ in range(count)])
    try:
        if table["format"] != FORMAT:
            raise Damaged(f"the optimiser's state is written in format {table['format']}, of which {FORMAT} is known")
        reader = Reader(meta, tensors, table["nodes"])
        state = {reader.read(key): reader.read(value) for key, value in table["state"]}
        groups = [reader.read(group) for group in table["groups"]]
    except Damaged:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, struct.error) as error:
        raise Damaged(f"the optimiser's state cannot be read: {error}") from None
    if len(groups) != count or not all(isinstance(group, dict) for group in groups):
        raise Damaged(f"the optimiser's state is of {len(groups)} parameter groups instead of {count}, or of none")
    return OptimizerState(state, groups)


def _changed(group: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """What an optimiser has put into a parameter group."""
    return {
        key: value
        for key, value in group.items()
        if key not in DESCRIBED and not (key in defaults and _is_same(value, defaults[key]))
    }


def _is_same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return one is other or (isinstance(one, bool | int | float | str) and bool(one == other))


def _simple(optimizer: torch.optim.Optimizer, meta: Tensors) -> Tensors | None:
    """The state as tensors by key and parameter; None if it is more than that."""
    names = {id(parameter): name for name, parameter in meta.items()}
    found: Tensors = {}
    seen = {tensor.untyped_storage().data_ptr() for tensor in meta.values()}
    for parameter, state in optimizer.state.items():
        name = names.get(id(parameter))
        if name is None or type(state) is not dict:
            return None
        for key, value in state.items():
            if type(key) is not str or not key or "/" in key or type(value) is not Tensor:
                return None
            plain = (
                value.layout == torch.strided
                and value.dtype in WRITABLE
                and value.is_contiguous()
                and not value.requires_grad
            )
            if not plain or value.device != _device_of(key, parameter):
                return None
            if value.numel():
                place = value.untyped_storage().data_ptr()
                if place in seen:
                    return None
                seen.add(place)
            found[f"{SIMPLE}/{key}/{name}"] = value.detach().cpu().clone()
    return found


def _from_simple(tensors: Tensors, meta: Tensors) -> dict[Any, Any]:
    state: dict[Any, Any] = {}
    for full, value in tensors.items():
        part, _, rest = full.partition("/")
        if part == SIMPLE:
            key, _, name = rest.partition("/")
            if name not in meta:
                raise Damaged(f"{full} is of no parameter")
            # A copy: what safetensors hands out lies at any offset of the file.
            place = _device_of(key, meta[name])
            state.setdefault(meta[name], {})[key] = value.to(place, copy=True)
    return state


def _device_of(key: str, parameter: Tensor) -> torch.device:
    """Adam and its like keep their step counter on the CPU; moments live with their parameter."""
    return CPU if key == "step" else parameter.device
