"""Labels in whatever a user holds them: read by value, or refused with the place and the reason."""

import datetime
import enum
import re
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from metaray.errors import InputError
from metaray.tasks.labels import plain_labels


class Animal(enum.Enum):
    CAT = 1
    DOG = 2


NUMBERS, WORDS = [1, 1, 0, 2], ["b", "b", "a", "c"]
DAYS = [datetime.date(2020, 1, day) for day in (1, 1, 2, 3)]


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (torch.tensor(NUMBERS), NUMBERS),
        (list(torch.tensor(NUMBERS)), NUMBERS),
        ([torch.tensor([number]) for number in NUMBERS], NUMBERS),
        (torch.tensor(NUMBERS)[:, None], NUMBERS),
        (torch.tensor([0.5, 0.5, 1.0], requires_grad=True), [0.5, 0.5, 1.0]),
        (torch.tensor([0.5, 1.0], dtype=torch.bfloat16), [0.5, 1.0]),
        (np.array(NUMBERS, np.int8), NUMBERS),
        (np.array(NUMBERS, np.uint8)[::-1], NUMBERS[::-1]),
        ([np.int64(number) for number in NUMBERS], NUMBERS),
        ([np.array(number) for number in NUMBERS], NUMBERS),
        (np.array([True, False]), [True, False]),
        (np.array(WORDS), WORDS),
        (np.array(WORDS, object), WORDS),
        (np.array([b"a", b"b"]), [b"a", b"b"]),
        (np.array(["2020-01-01", "2020-01-02"], "M8[D]"), [datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)]),
        (np.array(["2020-01-01"], "M8[ns]"), [np.datetime64("2020-01-01", "ns")]),
        (pd.Series(WORDS, index=[9, 8, 7, 6]), WORDS),
        (pd.Series(WORDS, dtype="category"), WORDS),
        (pd.Categorical(WORDS), WORDS),
        (pd.Series(NUMBERS, dtype="Int64"), NUMBERS),
        (pd.DataFrame({"label": WORDS}), WORDS),
        (pd.Index(NUMBERS), NUMBERS),
        (pa.array(WORDS), WORDS),
        (list(pa.array(NUMBERS)), NUMBERS),
        (pa.chunked_array([NUMBERS[:2], NUMBERS[2:]]), NUMBERS),
        (tuple(WORDS), WORDS),
        ((word for word in WORDS), WORDS),
        (map(str, NUMBERS), ["1", "1", "0", "2"]),
        (dict(enumerate(WORDS)).values(), WORDS),
        (DAYS, DAYS),
        ([Animal.CAT, Animal.DOG], [Animal.CAT, Animal.DOG]),
        ([("a", torch.tensor(1)), ("a", torch.tensor(1))], [("a", 1), ("a", 1)]),
    ],
)
def test_labels_are_read_by_value(given: Any, plain: list[Any]) -> None:
    found = plain_labels(given)
    assert found == plain and list(map(type, found)) == list(map(type, plain))


ONE_HOT = np.eye(3)[NUMBERS]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([0.0, float("nan"), 1.0], "label 1 is missing (nan)"),
        (np.array([0.0, np.nan]), "label 1 is missing"),
        (torch.tensor([torch.nan, 1.0]), "label 0 is missing"),
        (["a", None], "label 1 is missing (None)"),
        ([pd.NA, "a"], "label 0 is missing (<NA>)"),
        (pd.Series([1, None, 2], dtype="Int64"), "label 1 is missing"),
        (pd.Categorical(["a", None]), "label 1 is missing"),
        (pd.to_datetime(pd.Series(["2020-01-01", None])), "label 1 is missing"),
        (pa.array(["a", None]), "label 1 is missing (None)"),
        (np.ma.array([1, 2], mask=[True, False]), "y is a masked array"),
        ("bac", "y is of type str ('bac'); give a list or an array with one for each example"),
        (b"bac", "y is of type bytes (b'bac')"),
        (None, "y is None"),
        (3, "y is of type int (3)"),
        (torch.tensor(3), "y is of type Tensor and shape [] of torch.int64"),
        ({"a": 1}, "y is of type dict, which has no order of examples"),
        ({"a", "b"}, "y is of type set, which has no order of examples"),
        (ONE_HOT, "y is an array of shape [4, 3] and type float64; give one label an example"),
        (torch.from_numpy(ONE_HOT), "of one-hot rows y.argmax(1)"),
        (list(ONE_HOT), "label 0 is of type ndarray and shape [3] of float64; give one label an example"),
        (ONE_HOT.tolist(), "label 0 is of type list ([0.0, 1.0, 0.0]), which can't be compared"),
        (np.full((4, 3), 1 / 3), "y is an array of shape [4, 3]"),
        (pd.DataFrame({"a": [1], "b": [2]}), "y is an array of shape [1, 2]"),
        ([{"a": 1}], "label 0 is of type dict ({'a': 1}), which can't be compared"),
        (["a", object()], "label 1 is of type object"),
        ([1, True], "y holds both 1 and True (int and bool), which can't be told apart"),
        ([1, 0, 1.0], "y holds both 1 and 1.0 (int and float)"),
        ([1, "1"], "y holds both 1 and '1' (int and str)"),
        (["caf\u00e9", "cafe\u0301"], "(str and str), which can't be told apart"),
        (torch.eye(3).to_sparse(), "y is a tensor of shape [3, 3], type torch.float32 and layout torch.sparse_coo"),
    ],
)
def test_what_is_no_label_is_refused_with_its_place(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        plain_labels(given)
