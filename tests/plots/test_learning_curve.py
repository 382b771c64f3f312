"""The picture of a run."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metaray.plots.learning_curve import draw_learning_curve, smoothed
from metaray.tracking.tracker import Metric


def curve(key: str, steps: range, slope: float) -> list[Metric]:
    return [Metric(key, 1.0 + slope * step, step, step) for step in steps]


@pytest.mark.parametrize(
    "metrics",
    [
        [],
        [Metric("train/loss", math.nan, 0, 0)],
        curve("train/loss", range(1), -0.01),
        [
            *curve("train/loss", range(100), -0.01),
            *curve("train/accuracy", range(100), 0.01),
            *curve("val/loss", range(0, 100, 20), -0.01),
            *curve("val/accuracy", range(0, 100, 20), 0.01),
        ],
        [*curve("train/loss", range(50), -0.01), *curve("val/mse", range(0, 50, 10), -0.01)],
    ],
    ids=["nothing", "only nan", "one step", "classification", "regression"],
)
def test_draws_what_there_is(metrics: list[Metric], tmp_path: Path) -> None:
    path = tmp_path / "curve.png"
    draw_learning_curve(metrics, path, "a $title with_ 100% odd characters")
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size == (1200, 480)


def test_smoothing_is_a_mean_that_does_not_pad() -> None:
    np.testing.assert_allclose(smoothed(np.full(7, 3.0), 5), 3.0)
    np.testing.assert_allclose(smoothed(np.array([0.0, 3.0, 6.0]), 3), [1.5, 3.0, 4.5])
    np.testing.assert_array_equal(smoothed(np.array([1.0, 2.0]), 1), [1.0, 2.0])
