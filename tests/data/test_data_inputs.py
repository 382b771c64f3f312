"""Arrays and flat dicts of arrays alike."""

import numpy as np
import pytest

from metaray.data.inputs import mapped, parts_of, shapes_of, stacked, take

PLAIN = np.arange(6).reshape(3, 2)
NAMED = {"values": PLAIN, "lengths": np.array([1, 2, 1])}


def test_an_array() -> None:
    assert parts_of(PLAIN)[0] is PLAIN
    assert shapes_of(PLAIN) == ((3, 2),) and stacked([PLAIN, PLAIN]).shape == (2, 3, 2)
    assert take(PLAIN, 1).tolist() == [2, 3] and mapped(len, PLAIN) == 3


def test_a_dict() -> None:
    assert shapes_of(NAMED) == ((3, 2), (3,)) and mapped(len, NAMED) == {"values": 3, "lengths": 3}
    both = stacked([NAMED, NAMED])
    assert shapes_of(both) == ((2, 3, 2), (2, 3)) and take(both, (1, 2))["values"].tolist() == [4, 5]
    assert take(NAMED, slice(1, None))["lengths"].tolist() == [2, 1]


def test_what_cannot_be_stacked() -> None:
    with pytest.raises(ValueError, match="stack"):
        stacked([])
    with pytest.raises(ValueError, match="same shape"):
        stacked([NAMED, take(NAMED, slice(1))])
