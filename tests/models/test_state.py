"""What a network holds besides what is trained."""

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metaray.models.model import build_seeded
from metaray.models.state import is_marks, kept, marks_of, rebuilt, restore, tensors_sha256, undone, unlike
from tests.user_networks import Held, own


def held(seed: int = 0) -> nn.Module:
    return build_seeded(own("Held"), (4,), 2, seed=seed)


def test_what_is_saved_and_what_is_built_anew() -> None:
    assert sorted(kept(held())) == [
        *("fixed.bias", "fixed.weight"),
        *("norm.bias", "norm.running_mean", "norm.running_var", "norm.weight"),
        "saved",
    ]
    assert sorted(rebuilt(held())) == ["attribute[0]", "made"]
    assert kept(nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 2))) == rebuilt(nn.LSTM(2, 2)) == {}


def test_restoring_gives_the_same_network() -> None:
    one, other = held(0), held(1)
    x = torch.randn(3, 4)
    other.load_state_dict(one.state_dict() | {name: t for name, t in other.state_dict().items() if name in kept(other)})
    with undone(other):
        other.made, other.attribute = one.made, one.attribute
        assert not torch.equal(one(x), other(x))
        restore(other, kept(one))
        assert torch.equal(one(x), other(x))


def test_a_buffer_under_two_names_and_an_expanded_one_can_be_restored() -> None:
    network = nn.Sequential(nn.Identity(), nn.Identity())
    shared = torch.zeros(3)
    network[0].register_buffer("a", shared)
    network[1].register_buffer("b", shared)
    network.register_buffer("wide", torch.zeros(1).expand(4))
    assert list(kept(network)) == ["wide", "0.a"]
    restore(network, {"0.a": torch.ones(3), "wide": torch.arange(4.0)})
    assert torch.equal(network[1].get_buffer("b"), torch.ones(3))
    assert torch.equal(network.get_buffer("wide"), torch.arange(4.0))


def test_the_digest_is_over_names_shapes_types_and_bytes() -> None:
    tensors = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor(3)}
    digest = hashlib.sha256()
    for name in ("a", "b"):
        digest.update(json.dumps([name, list(tensors[name].shape), str(tensors[name].dtype)]).encode())
        digest.update(tensors[name].numpy().tobytes())
    assert tensors_sha256(tensors) == digest.hexdigest()
    for odd in (torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.complex64), torch.zeros(0)):
        assert tensors_sha256({"a": odd}) != tensors_sha256({"a": odd.new_zeros(3)})


def other_processor(x: Tensor) -> Tensor:
    """The last bits as another vector unit might round them."""
    return torch.from_numpy(np.nextafter(x.numpy(), np.float32(9)))


ALIKE: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "same": (lambda x: x.clone(), True),
    "last bits": (other_processor, True),
    "another table": (lambda x: torch.randn(x.shape, generator=torch.Generator().manual_seed(9)), False),
    "order": (lambda x: x.flip(0), False),
    "sign": (lambda x: -x, False),
    "one number": (lambda x: x + 0.1 * (torch.arange(len(x)) == 3), False),
    "type": (lambda x: x.double() * 2, False),
    "size": (lambda x: x[:-1], False),
    "not finite": (lambda x: x / 0, False),
}


@pytest.mark.parametrize(("change", "alike"), ALIKE.values(), ids=ALIKE)
def test_tensors_are_known_again(change: Callable[[Tensor], Tensor], alike: bool) -> None:
    x = torch.randn(200, generator=torch.Generator().manual_seed(0))
    then, now = marks_of({"x": x, "n": torch.arange(3)}), marks_of({"x": change(x), "n": torch.arange(3)})
    assert is_marks(json.loads(json.dumps(then))) and unlike(then, now) == ([] if alike else ["x"])


def test_masks_integers_and_absent_tensors_are_compared_to_the_bit() -> None:
    mask = torch.tensor([0.0, -math.inf])
    assert unlike(marks_of({"m": mask}), marks_of({"m": mask.clone()})) == []
    assert unlike(marks_of({"m": mask}), marks_of({"m": mask.flip(0)})) == ["m"]
    assert unlike(marks_of({"n": torch.arange(3)}), marks_of({"n": torch.arange(3) + 1})) == ["n"]
    assert unlike(marks_of({"n": torch.arange(3)}), {}) == unlike({}, marks_of({"n": torch.arange(3)})) == ["n"]


@pytest.mark.parametrize("value", [[], {"a": 1}, {"a": {"sha256": 3}}, {"a": {"sha256": "", "sketch": [1, "2", 3, 4]}}])
def test_what_describes_no_tensors(value: object) -> None:
    assert not is_marks(value)


def test_attributes_and_buffers_can_be_undone() -> None:
    network: Any = Held(feature_shape=(4,), outputs=2)
    before = network.saved.clone()
    with pytest.raises(KeyError), undone(network):
        network.saved += 1
        network.attribute, network.extra = torch.zeros(1), 3
        network.register_buffer("late", torch.zeros(1))
        raise KeyError
    assert torch.equal(network.saved, before) and len(network.attribute) == 8
    assert not hasattr(network, "extra") and "late" not in dict(network.named_buffers())
