"""Inputs as one tensor, and as a flat dict of several."""

import pytest
import torch
from torch import Tensor

from metaray.episodes.inputs import (
    concatenate,
    count,
    described,
    device_of,
    flattened,
    mapped,
    not_taken,
    take,
    tensors_of,
    to_dtype,
    unflattened,
)

PLAIN = torch.arange(12.0).view(4, 3)


def texts(count: int = 4, length: int = 8) -> dict[str, Tensor]:
    return {"words": torch.ones(count, length, dtype=torch.int64), "mask": torch.ones(count, length, dtype=torch.bool)}


def test_one_tensor() -> None:
    assert count(PLAIN) == 4 and device_of(PLAIN).type == "cpu" and described(PLAIN) == "(4, 3)"
    assert torch.equal(take(PLAIN, [2, 0]), PLAIN[[2, 0]]) and to_dtype(PLAIN, torch.float64).dtype == torch.float64
    assert torch.equal(concatenate([PLAIN, PLAIN]), torch.cat([PLAIN, PLAIN])) and tensors_of(PLAIN) == [PLAIN]
    assert mapped(len, PLAIN) == 4


def test_a_dict() -> None:
    x = texts()
    assert count(x) == 4 and device_of(x).type == "cpu" and described(x) == "words (4, 8), mask (4, 8)"
    assert take(x, slice(2))["words"].shape == (2, 8)
    assert {name: part.dtype for name, part in to_dtype(x | {"p": PLAIN}, torch.float64).items()} == {
        "words": torch.int64,
        "mask": torch.bool,
        "p": torch.float64,
    }


def test_other_lengths_are_padded_with_what_the_mask_says_is_nothing() -> None:
    found = concatenate([texts(2, 8), texts(1, 16)])
    assert found["words"].shape == (3, 16) and found["mask"].sum(1).tolist() == [8, 8, 16]
    points = [{"points": torch.ones(2, n, 3), "size": torch.ones(2)} for n in (8, 16)]
    both = concatenate(points)
    assert both["points"].shape == (4, 16, 3) and both["size"].shape == (4,) and both["points"].sum() == 2 * 24 * 3
    assert concatenate([texts(2), texts(1)])["mask"].all()


@pytest.mark.parametrize("x", [PLAIN, texts()], ids=["tensor", "dict"])
def test_among_what_a_task_taught(x: Tensor | dict[str, Tensor]) -> None:
    kept = flattened(x, "support_x") | {"support_y": torch.zeros(4)}
    assert all(isinstance(tensor, Tensor) for tensor in kept.values())
    back = unflattened(kept, "support_x")
    assert described(back) == described(x) and all(map(torch.equal, tensors_of(back), tensors_of(x)))


def test_what_a_network_raises() -> None:
    told = str(not_taken(texts(2), IndexError("index out of range in self")))
    expected = "the model cannot take a batch of shape words (2, 8), mask (2, 8) from this source"
    assert told == f"{expected}: IndexError: index out of range in self"
    assert str(not_taken(PLAIN, RuntimeError("no"))).endswith("(4, 3) from this source: no")
