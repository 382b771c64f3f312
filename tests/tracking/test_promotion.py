"""The champion policy."""

import pytest

from metaray.tracking.promotion import decide
from metaray.training.evaluation import Estimate


def test_the_first_version_becomes_champion() -> None:
    assert decide(None, None).promote


@pytest.mark.parametrize(
    ("mean", "half_width", "promote"),
    [(0.02, 0.01, True), (0.01, 0.01, False), (0.01, 0.02, False), (-0.1, 0.01, False)],
)
def test_the_interval_must_lie_above_zero(mean: float, half_width: float, promote: bool) -> None:
    decision = decide("3", Estimate(mean, half_width, 100))
    assert decision.promote == promote
    assert f"{mean:+.4f} +- {half_width:.4f}" in decision.reason and "version 3" in decision.reason


@pytest.mark.parametrize(
    ("mean", "half_width", "promote"),
    [(-0.02, 0.01, True), (-0.01, 0.01, False), (-0.01, 0.02, False), (0.1, 0.01, False)],
)
def test_of_squared_error_less_is_better(mean: float, half_width: float, promote: bool) -> None:
    decision = decide("3", Estimate(mean, half_width, 100), quality="mse")
    assert decision.promote == promote
    assert f"meta-val mse difference to version 3: {mean:+.4f} +- {half_width:.4f}" in decision.reason
    assert ("not below zero" in decision.reason) != promote


def test_what_cannot_be_compared_is_not_promoted() -> None:
    decision = decide("3", None, "the learner is 5-way, the evaluation 20-way")
    assert not decision.promote and "5-way" in decision.reason
