import math
from statistics import NormalDist

import numpy as np
import pytest

from metaray.reports.calibration import BINS, LEVELS, calibration, coverage


def test_the_expected_error_of_a_case_by_hand() -> None:
    """Two bins of ten: nine predictions at 0.85 of which six are right, and one at 0.15 that is right."""
    found = calibration(np.array([0.85] * 9 + [0.15]), np.array([True] * 6 + [False] * 3 + [True]), bins=10)
    assert found.expected_error == pytest.approx(9 / 10 * abs(6 / 9 - 0.85) + 1 / 10 * abs(1 - 0.15))
    assert found.largest_error == pytest.approx(0.85)
    assert [one.predictions for one in found.bins] == [0, 1, 0, 0, 0, 0, 0, 0, 9, 0] and found.predictions == 10
    assert found.bins[8].accuracy == pytest.approx(6 / 9) and found.bins[8].confidence == pytest.approx(0.85)
    assert math.isnan(found.bins[0].accuracy)


def test_bins_hold_their_upper_end() -> None:
    """As in the paper: ((m - 1) / M, m / M]; nothing is left out, not even certainty or its opposite."""
    found = calibration(np.array([0.0, 0.5, 0.5000001, 1.0]), np.ones(4, bool), bins=2)
    assert [one.predictions for one in found.bins] == [2, 2]
    assert len(calibration(np.array([0.3]), np.array([True])).bins) == BINS == 15


def test_confidence_that_can_be_believed_has_no_error() -> None:
    generator = np.random.default_rng(0)
    sure = generator.uniform(0.2, 1, 200_000)
    found = calibration(sure, generator.uniform(size=len(sure)) < sure)
    assert found.expected_error < 0.005
    assert calibration(sure, np.zeros(len(sure), bool)).expected_error == pytest.approx(sure.mean())


@pytest.mark.parametrize("sure", [[], [1.2], [-0.1], [math.nan]])
def test_what_is_no_confidence_is_refused(sure: list[float]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibration(np.array(sure), np.ones(len(sure), bool))


def test_intervals_of_gaussians() -> None:
    generator = np.random.default_rng(0)
    mean, spread = generator.normal(size=100_000), generator.uniform(0.5, 2, 100_000)
    truth = generator.normal(mean, spread)
    for level in coverage(truth, mean, spread):
        assert level.observed == pytest.approx(level.nominal, abs=0.01)
    half = NormalDist().inv_cdf(0.75)
    found = coverage(np.array([half * 0.99, half * 1.01]), np.zeros(2), np.ones(2))
    assert found[0] == (0.5, 0.5) and [one.nominal for one in found] == list(LEVELS)
