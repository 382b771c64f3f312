"""What is better, and who wins."""

import math
from dataclasses import replace

import pytest

from metaray.tuning.trial import ENDED, Objective, Trial, TrialScore, TrialStatus, trial_name, winner_of

ACCURACY, MSE = Objective("accuracy", highest=True), Objective("mse", highest=False)


def trial(number: int, *values: float, status: TrialStatus = "finished") -> Trial:
    return Trial(number, {}, 100, status, curve=tuple(TrialScore(i, 4 * i, value) for i, value in enumerate(values, 1)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("objective", [ACCURACY, MSE])
def test_what_is_not_finite_is_worse_than_anything(bad: float, objective: Objective) -> None:
    assert objective.better(-1e9, bad) and objective.better(1e9, bad)
    assert not objective.better(bad, -1e9) and not objective.better(bad, 1e9)
    assert not objective.better(bad, bad) and not objective.better(bad, math.nan)


def test_better() -> None:
    assert ACCURACY.better(2, 1) and not ACCURACY.better(1, 2) and not ACCURACY.better(1, 1)
    assert MSE.better(1, 2) and not MSE.better(2, 1) and not MSE.better(1, 1)


def test_the_best_evaluation() -> None:
    one = trial(0, 0.5, math.nan, 0.75, 0.75, math.inf, 0.25)
    assert one.best(ACCURACY) is one.curve[2] and one.best(MSE) is one.curve[5]
    assert trial(0).best(ACCURACY) is None and trial(0, math.nan, math.inf).best(MSE) is None


def test_what_a_trial_says_of_itself() -> None:
    assert (trial(3).name, trial_name(12345)) == ("trial-0003", "trial-12345")
    assert (trial(3).episodes, trial(3, 0.5, math.nan).episodes) == (0, 8)


@pytest.mark.parametrize("status", [*(one for one in ENDED if one != "finished"), "waiting", "running"])
def test_those_that_trained_to_the_end_come_first(status: TrialStatus) -> None:
    early, late = trial(0, 0.9, status=status), trial(1, 0.5)
    assert winner_of([early, late], ACCURACY) is late
    assert winner_of([early, trial(1, math.nan)], ACCURACY) is early
    assert winner_of([early, trial(1, 0.95, status=status)], ACCURACY).number == 1  # type: ignore[union-attr]


def test_the_best_evaluation_decides_not_the_last() -> None:
    assert winner_of([trial(0, 0.9, 0.1), trial(1, 0.5, 0.6)], ACCURACY).number == 0  # type: ignore[union-attr]
    assert winner_of([trial(0, 0.9, 0.2), trial(1, 0.1, 0.6)], MSE).number == 1  # type: ignore[union-attr]


def test_of_equal_ones_the_lowest_number_wins() -> None:
    three = [trial(number, 0.5) for number in (2, 0, 1)]
    for objective in (ACCURACY, MSE):
        assert winner_of(three, objective).number == 0  # type: ignore[union-attr]


def test_without_an_evaluation_nobody_wins() -> None:
    assert winner_of([], ACCURACY) is None
    assert winner_of([trial(0), trial(1, math.nan, status="failed")], ACCURACY) is None


def test_a_copy_has_seen_less_itself() -> None:
    copied = replace(trial(3, 0.5, 0.6, 0.7), inherited=8)
    assert (copied.episodes, copied.own_episodes) == (12, 4)
    assert replace(trial(3), inherited=8).own_episodes == 0 and trial(3, 0.5).own_episodes == 4
