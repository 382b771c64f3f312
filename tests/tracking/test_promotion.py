"""The champion policy."""

import math

import pytest

from metaray.tracking.promotion import Champion, decide
from metaray.training.evaluation import paired_difference

EPISODES = 100


def scores(mean: float, spread: float = 0.0) -> list[float]:
    """Half of them above `mean`, half below."""
    return [mean + spread * (-1) ** episode for episode in range(EPISODES)]


def test_the_first_version_becomes_champion() -> None:
    assert decide(scores(0.2), None) == (True, "the first version")


@pytest.mark.parametrize(
    ("mean", "spread", "promote"),
    [(0.02, 0.05, True), (0.0, 0.0, False), (0.01, 0.1, False), (-0.1, 0.05, False)],
)
def test_the_interval_must_lie_above_zero(mean: float, spread: float, promote: bool) -> None:
    present = scores(0.5)
    challenger = [a + b - 0.5 for a, b in zip(present, scores(0.5 + mean, spread), strict=True)]
    decision, difference = decide(challenger, Champion("3", present)), paired_difference(challenger, present)
    assert decision.promote == promote
    assert f"{difference.mean:+.4f} +- {difference.half_width:.4f}" in decision.reason
    assert "meta-val difference to version 3" in decision.reason
    assert ("not above zero" in decision.reason) != promote


@pytest.mark.parametrize(
    ("mean", "spread", "promote"),
    [(-0.02, 0.05, True), (0.0, 0.0, False), (-0.01, 0.1, False), (0.1, 0.05, False)],
)
def test_of_squared_error_less_is_better(mean: float, spread: float, promote: bool) -> None:
    decision = decide(scores(0.5 + mean, spread), Champion("3", scores(0.5)), quality="mse")
    assert decision.promote == promote
    assert f"meta-val mse difference to version 3: {mean:+.4f} +- " in decision.reason
    assert ("not below zero" in decision.reason) != promote


def test_what_cannot_be_compared_is_not_promoted() -> None:
    decision = decide(scores(0.5), Champion("3", None, "the learner is 5-way, the evaluation 20-way"))
    assert decision == (
        False,
        "not comparable with the champion, version 3: the learner is 5-way, the evaluation 20-way",
    )


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_scores_that_are_not_finite(bad: float) -> None:
    broken, sound = [bad, *scores(0.5)[1:]], scores(0.5)
    replaced = decide(sound, Champion("3", broken), quality="mse")
    assert replaced == (True, f"meta-val mse of version 3 is {bad}, which is not finite: now 0.5000")
    refused = (False, f"its meta-val mse is {bad}, which is not finite")
    for champion in (None, Champion("3", sound), Champion("3", broken)):
        assert decide(broken, champion, quality="mse") == refused
