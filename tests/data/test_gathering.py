"""Examples are turned as numpy turns them, whatever their shape and type."""

from typing import Any

import numpy as np
import pytest

from metaray.data import gathering
from metaray.data.gathering import gathered, turned


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32", "int64"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 4, 4), (1, 5, 5), (2, 2, 2), (6, 6), (1, 1, 1)])
@pytest.mark.parametrize("at_once", [1, 2**20])
def test_classes_are_turned_each_by_its_own_quarters(
    dtype: str, shape: tuple[int, ...], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "TURNED_BYTES", at_once)
    generator = np.random.default_rng(0)
    examples: Any = generator.integers(-99, 99, (40, *shape)).astype(dtype)
    before = examples.copy()
    rows, turns = generator.integers(0, 40, (9, 3)), np.array([0, 1, 2, 3, 2, 2, 0, 1, 3])
    upright = np.zeros(9, dtype=np.int64)
    found, plain = gathered(examples, (rows, turns), (rows, upright))
    expected = [
        np.rot90(examples[row], turn, axes=(-2, -1)) for mine, turn in zip(rows, turns, strict=True) for row in mine
    ]
    assert found.dtype == examples.dtype and found.flags.c_contiguous
    assert np.array_equal(found, expected) and np.array_equal(plain, examples[rows.reshape(-1)])
    assert np.array_equal(examples, before), "what is stored stays as it is"


@pytest.mark.parametrize("shape", [(7, 1, 28, 28), (2, 3, 2, 4), (4, 3, 3), (0, 4, 4)])
def test_half_turns_reverse_each_plane(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(turned(images, 2), images[..., ::-1, ::-1])
