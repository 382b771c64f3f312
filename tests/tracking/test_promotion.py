"""The champion policy."""

import math

import pytest

from metaray.records.estimate import paired_difference
from metaray.tracking.promotion import Champion, decide, insisted

EPISODES = 100


def scores(mean: float, spread: float = 0.0) -> list[float]:
    """Half of them above `mean`, half below."""
    return [mean + spread * (-1) ** episode for episode in range(EPISODES)]


BASELINES = {"the nearest neighbour": scores(0.5), "chance": scores(0.2)}


def test_a_first_champion_surpasses_every_baseline() -> None:
    assert decide(scores(0.6), None, baselines=BASELINES) == (
        True,
        "the first champion, meta-val difference to the nearest neighbour: +0.1000 +- 0.0000, "
        "meta-val difference to chance: +0.4000 +- 0.0000",
    )
    assert decide(scores(2.0), None, baselines={"the nearest neighbour": scores(2.5)}, quality="mse").promote


@pytest.mark.parametrize(
    ("challenger", "quality", "baselines", "reason"),
    [
        # A ViT at exactly chance, behind the nearest neighbour.
        (scores(0.2), "accuracy", BASELINES, "the nearest neighbour: -0.3000 +- 0.0000, whose interval is not above"),
        # Ahead, but by no more than luck.
        (scores(0.51, 0.1), "accuracy", BASELINES, "the nearest neighbour: +0.0100 +- 0.0197, whose interval is not"),
        # At chance, where the nearest neighbour is worse than that.
        (scores(0.2), "accuracy", BASELINES | {"the nearest neighbour": scores(0.1)}, "chance: +0.0000 +- 0.0000"),
        # Sinusoids: 4.73 against 2.49.
        (scores(4.73), "mse", {"the nearest neighbour": scores(2.49)}, "mse difference to the nearest neighbour: +2.2"),
    ],
)
def test_a_first_version_no_better_than_a_baseline_is_not_promoted(
    challenger: list[float], quality: str, baselines: dict[str, list[float]], reason: str
) -> None:
    decision = decide(challenger, None, baselines=baselines, quality=quality)
    assert not decision.promote
    assert decision.reason.startswith("a first champion must surpass ") and reason in decision.reason
    told = insisted(decision)
    assert told == (True, f"--promote said so, although {decision.reason}")
    assert insisted(told) == told


def test_a_broken_champion_gives_way_only_to_what_surpasses_the_baselines() -> None:
    broken = Champion("3", [math.nan] * EPISODES)
    assert not decide(scores(0.2), broken, baselines=BASELINES).promote
    assert decide(scores(0.6), broken, baselines=BASELINES).promote


@pytest.mark.parametrize(
    ("mean", "spread", "promote"),
    [(0.02, 0.05, True), (0.0, 0.0, False), (0.01, 0.1, False), (-0.1, 0.05, False)],
)
def test_the_interval_must_lie_above_zero(mean: float, spread: float, promote: bool) -> None:
    present = scores(0.5)
    challenger = [a + b - 0.5 for a, b in zip(present, scores(0.5 + mean, spread), strict=True)]
    decision = decide(challenger, Champion("3", present), baselines=BASELINES)
    difference = paired_difference(challenger, present)
    assert decision.promote == promote
    assert f"{difference.mean:+.4f} +- {difference.half_width:.4f}" in decision.reason
    assert "meta-val difference to version 3" in decision.reason
    assert ("not above zero" in decision.reason) != promote


@pytest.mark.parametrize(
    ("mean", "spread", "promote"),
    [(-0.02, 0.05, True), (0.0, 0.0, False), (-0.01, 0.1, False), (0.1, 0.05, False)],
)
def test_of_squared_error_less_is_better(mean: float, spread: float, promote: bool) -> None:
    decision = decide(scores(0.5 + mean, spread), Champion("3", scores(0.5)), baselines={}, quality="mse")
    assert decision.promote == promote
    assert f"meta-val mse difference to version 3: {mean:+.4f} +- " in decision.reason
    assert ("not below zero" in decision.reason) != promote


def test_what_cannot_be_compared_is_not_promoted() -> None:
    decision = decide(scores(0.5), Champion("3", None, "the learner is 5-way, the evaluation 20-way"), baselines={})
    assert decision == (
        False,
        "not comparable with the champion, version 3: the learner is 5-way, the evaluation 20-way",
    )


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_scores_that_are_not_finite(bad: float) -> None:
    broken, sound = [bad, *scores(0.5)[1:]], scores(0.5)
    replaced = decide(sound, Champion("3", broken), baselines={}, quality="mse")
    assert replaced == (True, f"meta-val mse of version 3 is {bad}, which is not finite: now 0.5000")
    refused = (False, f"its meta-val mse is {bad}, which is not finite")
    for champion in (None, Champion("3", sound), Champion("3", broken)):
        assert decide(broken, champion, baselines={}, quality="mse") == refused
