import math

import pytest

from metaray.experiment.quality import Quality, quality_of, surpasses


def test_quality_follows_the_targets() -> None:
    assert (quality_of(None), quality_of(1), quality_of(3)) == ("accuracy", "mse", "mse")


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
def test_surpasses(quality: Quality, score: float, best: float | None, better: bool) -> None:
    assert surpasses(quality, score, best) is better
