"""Meta-Dataset's numbers of examples, against a plain script of the paper's formulas."""

from math import ceil, exp, floor, log
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaray.data.draws import Draws
from metaray.data.meta_dataset import ImbalancedSizes, meta_dataset_sizes

counts_of_classes = st.lists(st.integers(2, 1300), min_size=2, max_size=50)


def sizes_of(counts: list[int], index: int = 0, **changes: int) -> ImbalancedSizes:
    numbers: dict[str, Any] = {"most_queries": 10, "most_a_class": 100, "most_support": 500, **changes}
    return meta_dataset_sizes(np.array(counts), draws=Draws(0, "meta-train", index), **numbers)


@given(counts_of_classes, st.integers(0, 2**64 - 1))
def test_within_the_bounds(counts: list[int], index: int) -> None:
    found = sizes_of(counts, index)
    assert found.queries == min(10, min(counts) // 2) >= 1
    assert (found.shots >= 1).all() and (found.shots + found.queries <= counts).all()
    assert found.shots.sum() <= min(500, sum(min(100, n - found.queries) for n in counts))


@given(counts_of_classes, st.integers(0, 2**64 - 1))
def test_the_papers_formulas(counts: list[int], index: int) -> None:
    uniform = Draws(0, "meta-train", index).uniform(1 + len(counts)).tolist()
    q = min(10, min(n // 2 for n in counts))
    # beta is uniform in (0, 1]; floor(x) + 1 and ceil(x) differ only where x is whole, as for beta = 0.
    share = [uniform[0] * min(100, n - q) for n in counts]
    total = min(500, sum(ceil(x) if x % 1 else int(x) + 1 for x in share))
    weights = [exp(log(0.5) + (log(2) - log(0.5)) * u) * n for u, n in zip(uniform[1:], counts, strict=True)]
    wanted = [
        min(floor(w / sum(weights) * (total - len(counts))) + 1, n - q) for w, n in zip(weights, counts, strict=True)
    ]
    assert sizes_of(counts, index).shots.tolist() == wanted


def test_classes_are_imbalanced_and_sizes_vary() -> None:
    found = [sizes_of([20] * 10, index).shots for index in range(200)]
    assert max(shots.max() - shots.min() for shots in found) >= 5
    totals = [int(shots.sum()) for shots in found]
    assert min(totals) == 10 and max(totals) > 80


def test_large_classes_get_more() -> None:
    found = np.stack([sizes_of([20, 200, 200, 2000], index).shots for index in range(200)])
    means = found.mean(axis=0)
    assert means[0] < means[1] < means[3]


def test_the_limits_are_the_specs() -> None:
    found = [sizes_of([50] * 6, index, most_queries=4, most_a_class=3, most_support=12) for index in range(100)]
    assert {sizes.queries for sizes in found} == {4}
    assert 8 < max(int(sizes.shots.sum()) for sizes in found) <= 12


def test_a_limit_below_the_ways() -> None:
    with pytest.raises(AssertionError):
        sizes_of([5, 5, 5], most_support=2)
