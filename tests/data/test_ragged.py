"""Examples of unequal length, gathered and padded."""

from itertools import pairwise

import numpy as np
import pytest

from metaray.data.ragged import (
    LADDER,
    LENGTHS,
    LONGEST,
    VALUES,
    fixed_shape,
    gather,
    is_ragged,
    joined,
    lengthened,
    padded_length,
    shape_text,
    unpadded,
)
from metaray.errors import InputError

ROWS = [np.arange(n, dtype=np.int32) + 1 for n in (3, 1, 9, 8, 20)]


def test_the_ladder_rises_by_a_third_or_a_half() -> None:
    assert LADDER[:8] == (8, 16, 24, 32, 48, 64, 96, 128) and LONGEST == 65_536
    ratios = {above / below for below, above in pairwise(LADDER[1:])}
    assert {round(ratio, 3) for ratio in ratios} == {1.333, 1.5}
    assert [padded_length(n) for n in (1, 8, 9, 16, 25, LONGEST)] == [8, 8, 16, 16, 32, LONGEST]


def test_both_sides_have_one_length_and_zeros_behind() -> None:
    support, query = gather(joined(ROWS, "row"), np.array([0, 1]), np.array([2, 0]))
    assert support[VALUES].shape == query[VALUES].shape == (2, 16) and support[VALUES].dtype == np.int32
    assert support[LENGTHS].tolist() == [3, 1] and query[LENGTHS].tolist() == [9, 3]
    assert support[VALUES][0].tolist() == [1, 2, 3] + [0] * 13
    assert gather(joined(ROWS, "row"), np.array([3]))[0][VALUES].shape == (1, 8)
    assert gather(joined(ROWS, "row"), np.array([3]), length=32)[0][VALUES].shape == (1, 32)


def test_points_in_space() -> None:
    rows = [np.full((n, 2), n, dtype=np.float32) for n in (1, 4)]
    found = joined(rows, "point set")
    assert len(found) == 2 and found[1].tolist() == [[4, 4]] * 4 and found.lengths.tolist() == [1, 4]
    (padded,) = gather(found, np.array([1, 0]))
    assert padded[VALUES].shape == (2, 8, 2) and padded[VALUES].sum() == 4 * 4 * 2 + 2
    with pytest.raises(InputError, match=r"point set 1 has the shape \[3, 3\], the first \[1, 2\]"):
        joined([rows[0], np.zeros((3, 3))], "point set")


def test_padding_is_taken_off_and_put_on() -> None:
    whole = joined(ROWS, "row")
    (compact,) = gather(whole, np.arange(5))
    back = unpadded(compact)
    assert np.array_equal(back.values, whole.values) and np.array_equal(back.offsets, whole.offsets)
    longer = lengthened(compact, 48)
    assert longer[VALUES].shape == (5, 48) and np.array_equal(longer[VALUES][:, :24], compact[VALUES])
    plain = np.arange(6).reshape(2, 3)
    assert unpadded(plain) is plain and lengthened(plain, 48) is plain
    assert np.array_equal(gather(plain, np.array([1, 1]))[0], plain[[1, 1]])


@pytest.mark.parametrize(
    ("lengths", "message"), [((2, 0), "row 1 is empty"), ((LONGEST + 1,), "row 0 has the length 65537, at most 65536")]
)
def test_what_no_length_takes(lengths: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        joined([np.zeros(n) for n in lengths], "row")


def test_shapes() -> None:
    assert is_ragged((None, 3)) and not is_ragged((3,)) and not is_ragged(())
    assert shape_text((None, 3)) == "(any, 3)" and fixed_shape((2, 3), "it") == (2, 3)
    with pytest.raises(InputError, match=r"mlp takes examples of one shape, not ragged ones of shape \(any, 3\)"):
        fixed_shape((None, 3), "mlp")
