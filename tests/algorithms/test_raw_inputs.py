"""Numbers as users give them; images are tested with the learners that take them."""

import re
from typing import Any

import numpy as np
import pytest
import torch

from metaray.algorithms.raw_inputs import compact, numbers
from metaray.data.preprocessing import VectorPreprocessing
from metaray.errors import InputError


@pytest.mark.parametrize(
    "given",
    [
        [[1, 2], [3, 4]],
        ((1.0, 2.0), (3.0, 4.0)),
        np.array([[1, 2], [3, 4]], dtype=np.int8),
        torch.tensor([[1, 2], [3, 4]]),
    ],
    ids=["lists", "tuples", "integers", "tensor"],
)
def test_rows_of_numbers(given: Any) -> None:
    found = compact(VectorPreprocessing(size=2), given)
    assert found.dtype == np.float32 and found.tolist() == [[1, 2], [3, 4]]


def test_one_number_a_row() -> None:
    assert numbers([1, 2.5], (1,), "x").tolist() == numbers([[1], [2.5]], (1,), "x").tolist() == [[1], [2.5]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1.0, 2.0], "x has the shape [2], but this learner takes [n, 2]"),
        ([[1.0], [2.0]], "x has the shape [2, 1], but this learner takes [n, 2]"),
        ([], "x holds nothing; give an array of numbers, [n, 2]"),
        (3.0, "x holds nothing"),
        ([[1.0, 2.0], [3.0]], "x must be an array of numbers, [n, 2]"),
        ([["a", "b"]], "x must be an array of numbers, [n, 2]: could not convert string to float: 'a'"),
        ([[1.0, 2.0], [3.0, np.nan]], "row 1 of x holds nan"),
        ([[1.0, -np.inf]], "row 0 of x holds -inf"),
        ([[1.0, 1e39]], "row 0 of x holds 1e+39, which is no finite number of 32 bits"),
        ([[None, 1.0]], "row 0 of x holds nan"),
    ],
)
def test_what_is_refused(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        numbers(given, (2,), "x")
