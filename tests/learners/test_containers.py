"""Values, whatever holds them."""

import io
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image

from metaray.containers import described, opened, opened_whole
from metaray.errors import InputError


class Pair:
    """What can be indexed, but has no iterator of its own."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, place: int) -> int:
        return (7, 8)[place]


@pytest.mark.parametrize(
    "given",
    [
        torch.tensor([7, 8]),
        torch.tensor([7.0, 8.0], requires_grad=True),
        torch.tensor([7, 0, 8, 0])[::2],
        torch.complex(torch.zeros(2), torch.tensor([-7.0, -8.0])).conj().imag,
        pd.Series([7, 8], index=["b", "a"]),
        pa.array([7, 8]),
        Pair(),
        (number for number in (7, 8)),
        {"b": 7, "a": 8}.values(),
        memoryview(array("l", [7, 8])),
    ],
)
def test_containers_are_opened(given: Any) -> None:
    assert list(opened_whole(given, "x")) == [7, 8]


@pytest.mark.parametrize(
    "given", ["7", b"7", bytearray(b"7"), Path("7"), Image.new("L", (1, 1)), io.BytesIO(b"7"), 7, None]
)
def test_one_value_stays_one(given: Any) -> None:
    assert opened(given, "x") is given
    with pytest.raises(InputError, match="x is (of type|None).*; give a list or an array with one for each example"):
        opened_whole(given, "x")


def test_descriptions_are_short() -> None:
    assert described(np.zeros((2, 3))) == "of type ndarray and shape [2, 3] of float64"
    assert described(list(range(1000))) == "of type list"
    assert described("a\x00b") == "of type str ('a\\x00b')"
