"""Many episodes draw side by side what each draws alone, bit for bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaray.data.draws import SPLITS, Draws, Split
from metaray.data.many_draws import LEAST_WORDS, ManyDraws

SEEDS = st.integers(0, 2**64 - 1)
INDICES = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=6)


def alone(seed: int, split: Split, index: int) -> np.random.Philox:
    """As numpy's manual has it: the key and the counter given as such."""
    key, counter = np.array([seed, index], dtype=np.uint64), np.array([0, 0, 0, SPLITS.index(split)], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter)


@given(SEEDS, st.sampled_from(SPLITS), INDICES, st.lists(st.integers(0, 2 * LEAST_WORDS), max_size=5))
def test_words_are_numpys(seed: int, split: Split, indices: list[int], counts: list[int]) -> None:
    draws = ManyDraws(seed, split, indices)
    found = np.concatenate([np.empty((len(indices), 0), np.uint64), *(draws.raw(count) for count in counts)], axis=1)
    for index, row in zip(indices, found, strict=True):
        expected = alone(seed, split, index).random_raw(sum(counts))
        assert np.array_equal(row, expected)
        assert np.array_equal(Draws(seed, split, index).raw(sum(counts)), expected)


@given(
    SEEDS,
    st.sampled_from(SPLITS),
    INDICES,
    st.integers(1, 40),
    st.lists(st.integers(0, 10**5), min_size=1, max_size=4),
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_whatever_is_drawn_is_what_each_draws(
    seed: int, split: Split, indices: list[int], k: int, more: list[int], ends: tuple[int, int]
) -> None:
    many, populations = ManyDraws(seed, split, indices), k + np.array(more)
    uniforms, between = many.uniform(3), many.between(min(ends), max(ends))
    chosen = many.choose(np.broadcast_to(populations, (len(indices), len(more))), k)
    after = many.raw(1)
    for place, index in enumerate(indices):
        draws = Draws(seed, split, index)
        assert np.array_equal(draws.uniform(3), uniforms[place])
        assert draws.between(min(ends), max(ends)) == between[place]
        assert np.array_equal(draws.choose(populations, k), chosen[place])
        assert draws.raw(1) == after[place], "as far on"


def test_populations_may_differ_between_episodes() -> None:
    populations = np.array([[5, 9], [40, 5], [6, 100_000]])
    found = ManyDraws(3, "meta-val", [4, 2**63, 0]).choose(populations, 5)
    for index, sizes, chosen in zip([4, 2**63, 0], populations, found, strict=True):
        assert np.array_equal(Draws(3, "meta-val", index).choose(sizes, 5), chosen)


@pytest.mark.parametrize("taken", [0, 1, LEAST_WORDS + 1])
def test_each_goes_on_where_all_are(taken: int) -> None:
    many = ManyDraws(0, "meta-test", [7, 8])
    many.raw(taken)
    found = [draws.raw(3) for draws in many.each()]
    assert np.array_equal(found, many.raw(3)) and len(many) == 2


def test_too_small_a_population_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError):
        ManyDraws(0, "meta-train", [0]).choose(np.array([[3]]), 4)
