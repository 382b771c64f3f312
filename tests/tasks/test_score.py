"""Which of two scores is the better one."""

import math

import pytest

from metaray.errors import InputError
from metaray.tasks.score import SCORES, score_named


@pytest.mark.parametrize(
    ("quality", "score", "best", "better"),
    [
        ("accuracy", 0.6, 0.5, True),
        ("accuracy", 0.5, 0.5, False),
        ("accuracy", 0.4, 0.5, False),
        ("mse", 0.4, 0.5, True),
        ("mse", 0.5, 0.5, False),
        ("mse", 0.6, 0.5, False),
        ("mse", math.inf, 0.5, False),
        ("mse", 0.5, math.inf, True),
        ("mse", math.nan, 0.5, False),
        ("mse", 0.5, math.nan, True),
        ("mse", math.nan, math.nan, False),
        ("mse", math.nan, None, True),
        ("accuracy", 0.0, None, True),
    ],
)
def test_surpasses(quality: str, score: float, best: float | None, better: bool) -> None:
    assert score_named(quality).surpasses(score, best) is better


def test_the_best_is_the_first_of_equals() -> None:
    values = [0.3, 0.9, 0.1, 0.9, 0.1]
    assert (SCORES["auroc"].best(values), SCORES["mse"].best(values)) == (1, 2)


def test_a_gain_is_positive_where_it_is_an_improvement() -> None:
    assert SCORES["accuracy"].gain(0.1) > 0 > SCORES["mse"].gain(0.1)


def test_an_unknown_score_is_refused() -> None:
    with pytest.raises(InputError, match="accurracy.*accuracy"):
        score_named("accurracy")
