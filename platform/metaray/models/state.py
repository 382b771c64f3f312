"""What a network holds besides the parameters that are trained: it must not change while a learner is made of it.

- `kept`: frozen parameters and persistent buffers. They are saved with a learner, and restored.
- `rebuilt`: other buffers, and tensors in plain attributes. They come from building the network anew, so what is saved
  of them is a `Mark`, by which they are known again.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]
Marks = dict[str, dict[str, Any]]

SKETCHED = 1_000_000
"""Largest number of values of a tensor that is also checked by some sums.

Another processor may compute its last bits differently.
"""
TOLERANCE = 1e-6


def kept(network: nn.Module) -> Tensors:
    """Frozen parameters and persistent buffers, by name: the very tensors that the network holds."""
    frozen: Tensors = {name: tensor for name, tensor in network.named_parameters() if not tensor.requires_grad}
    persistent = _persistent(network)
    return frozen | {name: buffer for name, buffer in network.named_buffers() if name in persistent}


def rebuilt(network: nn.Module) -> Tensors:
    """Other buffers and tensors in plain attributes, by name."""
    persistent = _persistent(network)
    found = {name: buffer for name, buffer in network.named_buffers() if name not in persistent}
    known = {id(tensor) for tensor in (*network.parameters(), *network.buffers())}
    for prefix, module in network.named_modules():
        for attribute, value in attributes(module).items():
            for i, leaf in enumerate(leaves(value)):
                tensor = torch.from_numpy(leaf) if _is_plain_array(leaf) else leaf
                # What requires grad is computed from parameters.
                if isinstance(tensor, Tensor) and id(tensor) not in known and not tensor.requires_grad:
                    found[f"{prefix}.{attribute}[{i}]".lstrip(".")] = tensor
    return found


def restore(network: nn.Module, state: Tensors) -> None:
    """Set frozen parameters and persistent buffers to the values of `state`, sharing its storage."""
    for name, tensor in kept(network).items():
        tensor.data = state[name]


def marks_of(tensors: Tensors) -> Marks:
    """The marks that each tensor is known again by, in JSON types."""
    return {name: _mark(tensor) for name, tensor in sorted(tensors.items())}


def is_marks(value: Any) -> TypeGuard[Marks]:
    """Whether a value read from JSON is what `marks_of` writes."""

    def is_mark(mark: Any) -> bool:
        sketch = mark.get("sketch", [0] * 4) if isinstance(mark, dict) else None
        numbers = isinstance(sketch, list) and len(sketch) == 4 and all(type(n) in (int, float) for n in sketch)
        return numbers and isinstance(mark.get("sha256"), str)

    return isinstance(value, dict) and all(map(is_mark, value.values()))


def unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names of tensors that are not the same, up to what different processors make of the same arithmetic."""
    return [name for name in sorted({*one, *other}) if not _alike(one.get(name), other.get(name))]


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over names, shapes, dtypes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, list(tensor.shape), str(tensor.dtype)]).encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def attributes(module: nn.Module) -> dict[str, Any]:
    """Attributes of a module's own making: neither torch's, nor parameters, buffers or submodules."""
    return {name: value for name, value in vars(module).items() if name not in _TORCH}


def leaves(value: Any) -> Iterator[Any]:
    """The numbers, texts, tensors and arrays in a value: itself, or what lists, tuples, sets and dicts hold."""
    if isinstance(value, Tensor | np.ndarray | bool | int | float | complex | str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(key)
            yield from leaves(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from leaves(item)


@contextmanager
def undone(network: nn.Module) -> Iterator[None]:
    """Restore attributes and buffers of every module to what they were before the block."""
    before = [(module, vars(module).copy(), module._buffers.copy()) for module in network.modules()]
    values = [(buffer, buffer.detach().clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        for module, attributes_of, buffers in before:
            vars(module).clear()
            vars(module).update(attributes_of)
            module._buffers.clear()
            module._buffers.update(buffers)
        for buffer, value in values:
            buffer.data = value


_TORCH = vars(nn.Module()).keys()


def _persistent(network: nn.Module) -> set[str]:
    found = set()
    for prefix, module in network.named_modules():
        for name in module._buffers.keys() - module._non_persistent_buffers_set:
            found.add(f"{prefix}.{name}" if prefix else name)
    return found


def _is_plain_array(value: Any) -> TypeGuard[np.ndarray[Any, Any]]:
    return isinstance(value, np.ndarray) and value.dtype.kind in "biufc" and value.dtype.isnative


def _bytes(tensor: Tensor) -> bytes:
    # Of bytes numpy makes no type, so that types that it does not know will do, too.
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def _mark(tensor: Tensor) -> dict[str, Any]:
    mark: dict[str, Any] = {"sha256": tensors_sha256({"": tensor})}
    if tensor.is_floating_point() and 0 < tensor.numel() <= SKETCHED:
        flat = tensor.detach().cpu().double().flatten()
        norm = float(flat.norm())
        if math.isfinite(norm):
            along = torch.linspace(-1, 1, len(flat), dtype=torch.float64)
            mark["sketch"] = [len(flat), norm, float(flat.sum()), float(flat @ along)]
    return mark


def _alike(one: Any, other: Any) -> bool:
    if one is None or other is None or one["sha256"] == other["sha256"]:
        return one is not None and other is not None
    if "sketch" not in one or "sketch" not in other or one["sketch"][0] != other["sketch"][0]:
        return False
    (count, norm, *sums), (_, other_norm, *other_sums) = one["sketch"], other["sketch"]
    allowed = TOLERANCE * max(norm, other_norm) * math.sqrt(count)
    return all(abs(a - b) <= allowed for a, b in zip([norm, *sums], [other_norm, *other_sums], strict=True))
