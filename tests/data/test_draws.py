import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from metaray.data.draws import SPLITS, Draws, Split


@given(
    st.integers(0, 2**64 - 1),
    st.sampled_from(SPLITS),
    st.integers(0, 2**64 - 1),
    st.integers(1, 8).flatmap(lambda k: st.tuples(st.just(k), st.lists(st.integers(k, 40), min_size=1, max_size=5))),
)
def test_choose_is_distinct_in_range_and_pure(
    seed: int, split: Split, index: int, sample: tuple[int, list[int]]
) -> None:
    k, populations = sample
    sizes = np.array(populations)
    chosen = Draws(seed, split, index).choose(sizes, k)
    assert chosen.shape == (len(sizes), k)
    assert (chosen >= 0).all() and (chosen < sizes[:, None]).all()
    assert all(len(set(row)) == k for row in chosen.tolist())
    assert np.array_equal(chosen, Draws(seed, split, index).choose(sizes, k))


def test_choose_is_uniform_over_ordered_samples() -> None:
    rows = 60_000
    chosen = Draws(3, "meta-train", 0).choose(np.full(rows, 4), 3)
    counts = np.bincount(chosen @ np.array([16, 4, 1]), minlength=64)
    seen = counts[counts > 0]
    expected = rows / 24
    assert len(seen) == 24
    # 23 degrees of freedom: chi-squared beyond 60 has probability 4e-5, and the draws are fixed.
    assert ((seen - expected) ** 2 / expected).sum() < 60


def test_streams_differ_by_seed_split_and_index() -> None:
    streams = [Draws(s, p, i).raw(4).tolist() for s in (0, 1) for p in SPLITS for i in (0, 1)]
    assert len({tuple(stream) for stream in streams}) == len(streams)


def test_uniform_is_in_the_unit_interval() -> None:
    numbers = Draws(0, "meta-val", 7).uniform(10_000)
    assert numbers.min() >= 0 and numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.01


@given(st.integers(0, 2**64 - 1), st.integers(1, 50), st.integers(0, 50))
def test_between_is_pure_and_within(index: int, low: int, more: int) -> None:
    first, again = (Draws(0, "meta-val", index).between(low, low + more) for _ in range(2))
    assert first == again and low <= first <= low + more


def test_between_equal_ends_draws_nothing() -> None:
    draws = Draws(0, "meta-val", 1)
    assert draws.between(4, 4) == 4 and draws.raw(1) == Draws(0, "meta-val", 1).raw(1)


@given(st.integers(0, 2**64 - 1), st.lists(st.tuples(st.integers(1, 500), st.floats(0, 1)), min_size=1, max_size=6))
def test_choose_each_is_distinct_in_range_and_pure(index: int, rows: list[tuple[int, float]]) -> None:
    populations = np.array([n for n, _ in rows])
    sizes = np.array([int(share * n) for n, share in rows])
    first, again = (Draws(3, "meta-test", index).choose_each(populations, sizes) for _ in range(2))
    for one, other, n, k in zip(first, again, populations, sizes, strict=True):
        assert np.array_equal(one, other) and one.shape == (k,)
        assert len(set(one.tolist())) == k and (one >= 0).all() and (one < n).all()


def test_choose_each_is_uniform_whichever_way_it_draws() -> None:
    """A population of 3 is shuffled whole; one of 300 is drawn from one by one."""
    found = [Draws(0, "meta-train", i).choose_each(np.array([3, 300]), np.array([2, 2])) for i in range(6000)]
    pairs = [tuple(small.tolist()) for small, _ in found]
    assert all(900 < pairs.count((a, b)) < 1100 for a in range(3) for b in range(3) if a != b)
    thirds = np.bincount([int(place) // 100 for _, large in found for place in large])
    assert (abs(thirds - 4000) < 200).all()
