"""Many episodes draw side by side what each draws alone, bit for bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaray.data.draws import FEW, SPARSE, SPLITS, Draws, Split, shuffled
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


@given(
    SEEDS,
    st.sampled_from(SPLITS),
    st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 400), st.integers(0, 9)), min_size=1, max_size=6),
    st.one_of(st.none(), st.integers(1, 4)),
)
def test_each_episode_chooses_from_its_own_populations(
    seed: int, split: Split, episodes: list[tuple[int, int, int]], k: int | None
) -> None:
    """Some of them so large that numbers are drawn one by one; then some have drawn more words than others."""
    indices = [index for index, *_ in episodes]
    least = k or 1
    populations = np.array([[least + first, least + second] for _, first, second in episodes])
    many = ManyDraws(seed, split, indices)
    many.raw(1)
    chosen, middle = many.choose_each(populations, k), many.between(0, 5)
    again, after = many.choose_each(populations[:, ::-1], k), many.raw(3)
    left = [draws.raw(1) for draws in many.each()]
    for place, (index, own) in enumerate(zip(indices, populations, strict=True)):
        draws = Draws(seed, split, index)
        draws.raw(1)
        sizes = own if k is None else np.array([k, k])
        for expected, found in zip(draws.choose_each(own, sizes), chosen[place], strict=True):
            assert np.array_equal(found[: len(expected)], expected)
        assert draws.between(0, 5) == middle[place]
        for expected, found in zip(draws.choose_each(own[::-1], sizes[::-1]), again[place], strict=True):
            assert np.array_equal(found[: len(expected)], expected)
        assert np.array_equal(draws.raw(3), after[place]) and draws.raw(1) == left[place]


def test_both_ways_to_draw_meet_in_one_meta_batch() -> None:
    populations = np.array([[2 * SPARSE], [2 * SPARSE + 1], [2], [10**6]])
    found = ManyDraws(0, "meta-train", range(4)).choose_each(populations, 2)
    for index, (population, chosen) in enumerate(zip(populations, found, strict=True)):
        expected = Draws(0, "meta-train", index).choose_each(population, np.array([2]))
        assert np.array_equal(expected[0], chosen[0]), population


@pytest.mark.parametrize("size", [1, FEW, FEW + 1, 500])
@pytest.mark.parametrize("values", [2**64 - 1, 3, 200])
def test_words_are_sorted_as_a_stable_sort_has_them(size: int, values: int) -> None:
    words = np.random.default_rng(0).integers(0, values, size, dtype=np.uint64)
    assert np.array_equal(shuffled(words), words.argsort(kind="stable"))


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
