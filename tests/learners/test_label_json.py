"""Labels of tasks in JSON."""

import enum
import json
from collections.abc import Hashable
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest

from metaray.errors import InputError
from metaray.learners.label_json import labels_from_json, labels_to_json


class Colour(enum.Enum):
    RED = 1


class Word(str):
    pass


LABELS: list[Hashable] = [
    "cat",
    "Größe ☃",
    "",
    7,
    -(10**30),
    True,
    0.1,
    -0.0,
    float("inf"),
    b"\x00\xff",
    date(2026, 2, 28),
    datetime(2026, 2, 28, 1, 2, 3, 4),
    datetime(2026, 2, 28, tzinfo=UTC),
    np.datetime64("2026-02-28T00:00:00.000000001"),
    ("a", 1, (2.5, b"x")),
    (),
]


@pytest.mark.parametrize("label", LABELS, ids=repr)
def test_a_label_comes_back_as_it_was(label: Hashable) -> None:
    written = json.loads(json.dumps(labels_to_json([label])))
    (found,) = labels_from_json(written)
    assert type(found) is type(label) and found == label and repr(found) == repr(label)


def test_words_and_numbers_are_plain() -> None:
    assert labels_to_json(["a", 1, True]) == ["a", 1, True]


@pytest.mark.parametrize("label", [Colour.RED, Word("a"), 1j, "a\0b", "\ud800", 10**41, ("a", Colour.RED)], ids=repr)
def test_what_would_come_back_as_something_else_is_refused(label: Hashable) -> None:
    with pytest.raises(InputError, match="which a task can't be saved with; adapt it to labels that are texts"):
        labels_to_json(["fine", label])


@pytest.mark.parametrize(
    "value",
    [None, 1.5, [], {}, {"type": "os", "value": "x"}, {"type": "float", "value": 1}, {"type": "date", "value": "x"}],
    ids=repr,
)
def test_what_is_no_label(value: Any) -> None:
    with pytest.raises(ValueError):
        labels_from_json([value])
