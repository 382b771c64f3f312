"""Nested values through JSON and safetensors, to the same bits."""

import json
import struct
from collections import OrderedDict, deque
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor, nn

from metaray.errors import InputError
from metaray.json_text import parse_json
from metaray.records.nested import DEEPEST, WRITABLE, Reader, Writer

META = {"w": torch.ones(2, requires_grad=True), "b": torch.zeros((), requires_grad=True)}


def through_bytes(value: Any) -> Any:
    writer = Writer(META)
    written = writer.write(value, "state")
    text = json.dumps({"written": written, "nodes": writer.nodes}, allow_nan=False)
    tree = parse_json(text, where="text")
    return Reader(META, load(save(writer.tensors)), tree["nodes"]).read(tree["written"])


def bits(value: Any) -> Any:
    """What can be compared: exact types, and bytes of tensors and floats."""
    if isinstance(value, Tensor):
        if any(value is parameter for parameter in META.values()):
            return "parameter", id(value)
        data = value.contiguous().flatten().view(torch.uint8).tolist() if value.numel() else []
        stride = () if value.is_contiguous() else value.stride()
        return "tensor", str(value.dtype), list(value.shape), stride, data
    if isinstance(value, float):
        return "float", struct.pack(">d", value)
    if isinstance(value, complex):
        return "complex", struct.pack(">dd", value.real, value.imag)
    if isinstance(value, dict):
        return "dict", [(bits(key), bits(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value).__name__, [bits(item) for item in value]
    return type(value).__name__, value


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype = draw(st.sampled_from(WRITABLE))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    count = int(np.prod(shape))
    if dtype == torch.bool:
        return torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=dtype).reshape(shape)
    size = torch.empty(0, dtype=dtype).element_size()
    data = bytearray(draw(st.binary(min_size=count * size, max_size=count * size)))
    found = torch.frombuffer(data, dtype=torch.uint8).view(dtype) if data else torch.empty(0, dtype=dtype)
    found = found.clone().reshape(shape)
    return found.transpose(0, -1) if found.ndim and draw(st.booleans()) else found


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**38), 10**38),
    st.floats(),
    st.complex_numbers(),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5),
)
keys = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text("ab/", max_size=3))
values = st.recursive(
    st.one_of(scalars, tensors(), st.sampled_from(list(META.values()))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=3),
    ),
    max_leaves=12,
)


@given(values)
def test_the_same_bits_come_back(value: Any) -> None:
    assert bits(through_bytes(value)) == bits(value)


def test_one_object_in_two_places_is_one_again() -> None:
    tensor, inner = torch.ones(3), [1]
    found = through_bytes({"a": tensor, "b": (tensor, inner), "c": inner, "of": META["w"]})
    assert found["a"] is found["b"][0] and found["c"] is found["b"][1] and found["of"] is META["w"]
    assert found["a"] is not tensor


def test_strides_come_back() -> None:
    found = through_bytes(torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1))
    assert found.stride() == (1, 12, 4) and found[3, 1, 2] == 23


class Pair(NamedTuple):
    one: int
    other: int


def looped() -> list[Any]:
    found: list[Any] = [1]
    found.append({"again": found})
    return found


def deep() -> list[Any]:
    found: list[Any] = []
    for _ in range(DEEPEST + 2):
        found = [found]
    return found


BASE = torch.arange(6.0)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"q": deque([1])}, r"state\['q'\] is of type collections.deque, which no checkpoint brings back"),
        ([OrderedDict()], r"state\[0\] is of type collections.OrderedDict"),
        (Pair(1, 2), "state is of type .*Pair"),
        ({1, 2}, "builtins.set"),
        (np.float64(1), "numpy.float64"),
        (len, "builtin_function"),
        ("a\0b", "builtins.str"),
        ("\ud800", "builtins.str"),
        (10**40, "builtins.int"),
        ({(1, Pair): 0}, r"a key of state\[1\] is of type"),
        (nn.Parameter(torch.ones(1)), "torch.nn.parameter.Parameter"),
        (torch.ones(1, requires_grad=True), "state is a tensor that requires a gradient"),
        (torch.ones(2, dtype=torch.complex64), "is strided and of complex64: keep a dense one of real numbers"),
        (torch.eye(2).to_sparse(), "is sparse_coo and of float32"),
        (torch.arange(6.0)[::2], r"has strides \(2,\), with gaps or overlaps: keep a copy"),
        (torch.ones(1).expand(3), "with gaps or overlaps"),
        ([BASE[:3], BASE[3:]], r"state\[1\] is a tensor that shares memory with state\[0\]: keep a copy"),
        (META["w"].detach(), "state is a tensor that shares memory with w"),
        (looped(), r"state\[1\]\['again'\] holds itself"),
        (deep(), f"lies more than {DEEPEST} containers deep"),
    ],
    ids=lambda value: "" if not isinstance(value, str) else value[:30],
)
def test_what_would_not_come_back_is_refused(value: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        Writer(META).write(value, "state")


@pytest.mark.parametrize(
    "written",
    [
        [1],
        1.5,
        {"node": 1},
        {"node": -1},
        {"node": True},
        {"float": "00"},
        {"float": "zz"},
        {"parameter": "v"},
        {"what": 1},
        {"node": 0, "float": ""},
        {},
    ],
    ids=str,
)
def test_hostile_values(written: Any) -> None:
    with pytest.raises((ValueError, KeyError, IndexError, TypeError, struct.error)):
        Reader(META, {}, [{"list": []}]).read(written)


@pytest.mark.parametrize(
    "node",
    [
        {"tensor": "absent"},
        {"tensor": "t", "stride": [1]},
        {"tensor": "t", "stride": [10**12, 1]},
        {"tensor": "t", "stride": [-1, 4]},
        {"set": [1]},
        {"list": [{"node": 0}]},
        {"dict": [[1]]},
        {"dict": [[{"node": 0}, 1]]},
        [],
        "text",
    ],
    ids=str,
)
def test_hostile_nodes(node: Any) -> None:
    with pytest.raises((ValueError, KeyError, IndexError, TypeError, RuntimeError, AttributeError)):
        Reader(META, {"t": torch.ones(2, 2)}, [node])
