"""Intervals over groups."""

import math

import numpy as np
import pytest

from metaray.records.estimate import estimate
from metaray.records.over_groups import over_groups, student_95


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (6, 2.4469), (9, 2.2622), (29, 2.0452), (120, 1.9799)],
)
def test_quantiles_of_student(degrees: int, quantile: float) -> None:
    """Of the tables."""
    assert student_95(degrees) == pytest.approx(quantile, abs=5e-5)


def test_the_quantile_falls_to_the_normal_one() -> None:
    found = [student_95(degrees) for degrees in (*range(1, 40), 500, 999, 1000, 1001, 100_000)]
    assert found == sorted(found, reverse=True) and found[-1] == pytest.approx(1.95997, abs=2e-5)


def test_each_group_counts_alike() -> None:
    found = over_groups([1.0, 1.0, 1.0, 3.0], ["a", "a", "a", "b"])
    assert (found.mean, found.groups) == (2.0, 2)
    assert found.half_width == pytest.approx(12.7062, rel=1e-4), "t of one degree, the deviation and the root are alike"
    assert str(found) == "2.0000 +- 12.7062 (2 groups)"


def test_one_group_has_no_interval() -> None:
    found = over_groups([1.0, 2.0], ["a", "a"])
    assert found.mean == 1.5 and math.isnan(found.half_width)
    assert str(found) == "1.5000 (1 group, which has no interval)"


def test_it_holds_the_mean_where_that_over_episodes_does_not() -> None:
    """Seven patients who differ, many episodes of each: the interval over episodes is nearly always too narrow."""
    generator, held = np.random.default_rng(0), [0, 0]
    names = [str(group) for group in range(7) for _ in range(50)]
    for _ in range(200):
        values = generator.normal(size=7).repeat(50) + generator.normal(size=350)
        by_episode, by_group = estimate(values), over_groups(values, names)
        held[0] += abs(by_episode.mean) < by_episode.half_width
        held[1] += abs(by_group.mean) < by_group.half_width
    assert held[0] < 80 and 180 <= held[1] <= 199
