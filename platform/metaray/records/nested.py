"""Values of tensors, numbers and text in lists, tuples and dicts, as a table in JSON and tensors by name; and back.

The same bits come back: floats are written by their bytes, tensors with their strides. What is one object in two places
is one object again. No entry of the table refers to a later one, so that reading is a loop and ends.
"""

import struct
from typing import Any

import torch
from torch import Tensor

from metaray.algorithms.context import Tensors
from metaray.errors import InputError
from metaray.json_text import LONGEST

PREFIX = "optimizer-state/"
DEEPEST = 100
CPU = torch.device("cpu")
WRITABLE = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
)
"""The types of numbers in tensors that every safetensors knows."""


class Writer:
    """Collects a nested value as a table of nodes, with its tensors.

    Attributes:
        nodes: Nodes for containers and tensors; each refers only to earlier ones.
        tensors: Copies of the tensors on the CPU, by name.
    """

    def __init__(self, meta: Tensors) -> None:
        self.nodes: list[Any] = []
        self.tensors: Tensors = {}
        self._names = {id(parameter): name for name, parameter in meta.items()}
        self._device = next((parameter.device for parameter in meta.values()), CPU)
        self._memory = {parameter.untyped_storage().data_ptr(): name for name, parameter in meta.items()}
        self._known: dict[int, int] = {}
        # An object's id is its own only as long as it lives.
        self._alive: list[Any] = []

    def write(self, value: Any, where: str, depth: int = 0) -> Any:
        """Add a value; returns its representation in JSON types.

        Args:
            value: Value to write.
            where: Unique place of the value inside the whole, for messages.
            depth: Number of containers around the value.

        Raises:
            InputError: If the value has a type that would not be read back unchanged, or is nested too deeply.
        """
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is int and abs(value) < 10 ** (LONGEST - 1):
            return value
        if kind is str and _is_text(value):
            return value
        if kind is float:
            return {"float": struct.pack(">d", value).hex()}
        if kind is complex:
            return {"complex": struct.pack(">dd", value.real, value.imag).hex()}
        if id(value) in self._names:
            return {"parameter": self._names[id(value)]}
        if kind not in (Tensor, list, tuple, dict) or depth > DEEPEST:
            raise InputError(_refused(value, where, depth))
        if id(value) not in self._known:
            self._known[id(value)] = -1
            self._alive.append(value)
            node = self._node(value, where, depth + 1)
            self._known[id(value)] = len(self.nodes)
            self.nodes.append(node)
        if self._known[id(value)] < 0:
            raise InputError(f"{where} holds itself")
        return {"node": self._known[id(value)]}

    def _node(self, value: Any, where: str, depth: int) -> dict[str, Any]:
        if isinstance(value, Tensor):
            return self._tensor(value, where)
        if isinstance(value, dict):
            pairs = [
                [self.write(key, f"a key of {where}", depth), self.write(item, f"{where}[{key!r:.40}]", depth)]
                for key, item in value.items()
            ]
            return {"dict": pairs}
        items = [self.write(item, f"{where}[{number}]", depth) for number, item in enumerate(value)]
        return {type(value).__name__: items}

    def _tensor(self, value: Tensor, where: str) -> dict[str, Any]:
        why = None
        if value.requires_grad:
            why = "requires a gradient: detach it"
        elif value.layout != torch.strided or value.dtype not in WRITABLE:
            why = f"is {value.layout} and of {value.dtype}: keep a dense one of real numbers".replace("torch.", "")
        elif not value.is_contiguous() and not _dense(value):
            why = f"has strides {value.stride()}, with gaps or overlaps: keep a copy (.contiguous())"
        elif value.numel():
            place = value.untyped_storage().data_ptr()
            other = self._memory.setdefault(place, where)
            if other != where:
                why = f"shares memory with {other}: keep a copy of its own (.clone())"
        if why is not None:
            raise InputError(f"{where} is a tensor that {why}")
        name = f"{PREFIX}{len(self.tensors)}"
        self.tensors[name] = value.cpu().contiguous().clone()
        node: dict[str, Any] = {"tensor": name}
        if not value.is_contiguous():
            node["stride"] = list(value.stride())
        if value.device == CPU and self._device != CPU:
            node["cpu"] = True
        return node


class Reader:
    """Reads values that a `Writer` has written.

    Args:
        meta: The parameters, by name.
        tensors: Tensors by name.
        nodes: The table of nodes.
    """

    def __init__(self, meta: Tensors, tensors: Tensors, nodes: list[Any]) -> None:
        self._meta, self._tensors = meta, tensors
        self._device = next((parameter.device for parameter in meta.values()), CPU)
        self._nodes: list[Any] = []
        for node in nodes:
            self._nodes.append(self._value(node))

    def read(self, written: Any) -> Any:
        """A value; refers to nodes that are read already.

        Raises:
            ValueError, KeyError, IndexError, TypeError: If it is none that a `Writer` writes.
        """
        if not isinstance(written, dict):
            if isinstance(written, list | float):
                raise ValueError(f"{type(written).__name__} where a value was expected")
            return written
        ((kind, what),) = written.items()
        if kind == "float":
            return struct.unpack(">d", bytes.fromhex(what))[0]
        if kind == "complex":
            return complex(*struct.unpack(">dd", bytes.fromhex(what)))
        if kind == "parameter":
            return self._meta[what]
        if kind != "node" or type(what) is not int or what < 0:
            raise ValueError(f"{kind!r} is no kind of value")
        return self._nodes[what]

    def _value(self, node: dict[str, Any]) -> Any:
        if "tensor" in node:
            return self._tensor(node)
        ((kind, items),) = node.items()
        if kind == "dict":
            return {self.read(key): self.read(item) for key, item in items}
        if kind not in ("list", "tuple"):
            raise ValueError(f"{kind!r} is no kind of container")
        found = [self.read(item) for item in items]
        return found if kind == "list" else tuple(found)

    def _tensor(self, node: dict[str, Any]) -> Tensor:
        stored = self._tensors[node["tensor"]]
        place = CPU if node.get("cpu") else self._device
        if "stride" not in node:
            # A copy: what safetensors hands out lies at any offset of the file.
            return stored.to(place, copy=True)
        strides = node["stride"]
        if sum((size - 1) * stride for size, stride in zip(stored.shape, strides, strict=True)) != stored.numel() - 1:
            raise ValueError(f"strides {strides} do not fit the shape {list(stored.shape)}")
        return torch.empty_strided(stored.shape, strides, dtype=stored.dtype, device=place).copy_(stored)


def _dense(tensor: Tensor) -> bool:
    """Whether it fills its memory without gaps and nothing twice, whatever the order of its axes."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True


def _is_text(value: str) -> bool:
    """Whether it is a text that JSON of ours may hold."""
    return "\0" not in value and not any(0xD800 <= ord(letter) < 0xE000 for letter in value)


def _refused(value: Any, where: str, depth: int) -> str:
    if depth > DEEPEST:
        return f"{where[:80]}... lies more than {DEEPEST} containers deep"
    return (
        f"{where} is of type {type(value).__module__}.{type(value).__qualname__}, which no checkpoint brings "
        "back: keep tensors, numbers and text, in lists, tuples and dicts"
    )
