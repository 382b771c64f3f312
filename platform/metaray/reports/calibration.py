"""Whether confidence can be believed: a reliability diagram, and the expected calibration error.

Guo, Pleiss, Sun and Weinberger ("On calibration of modern neural networks", ICML 2017, arXiv:1706.04599, section 2).
For predictions of values the same question is how often the truth lies within the interval that was predicted.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Bins of equal width, as many as the paper's tables have (M = 15)."""
LEVELS = (0.5, 0.68, 0.8, 0.9, 0.95, 0.99)


class Bin(NamedTuple):
    """The predictions whose confidence lies in (low, high].

    Attributes:
        low: Lower end, which belongs to the bin before; 0 belongs to the first bin.
        high: Upper end.
        predictions: Number of predictions.
        confidence: Their mean confidence; NaN of an empty bin.
        accuracy: The share of them that is right; NaN of an empty bin.
    """

    low: float
    high: float
    predictions: int
    confidence: float
    accuracy: float


class Calibration(NamedTuple):
    """Confidence beside accuracy.

    Attributes:
        bins: The bins, from low to high confidence; also those that are empty.
        expected_error: ECE, the sum over bins of predictions / n * |accuracy - confidence|.
        largest_error: MCE, the largest |accuracy - confidence| of a bin.
        predictions: Number of predictions, n.
    """

    bins: tuple[Bin, ...]
    expected_error: float
    largest_error: float
    predictions: int


class Level(NamedTuple):
    """How often the truth lay in intervals that should hold it with a probability.

    Attributes:
        nominal: The probability that the intervals should hold the truth with.
        observed: The share of targets that lay inside.
    """

    nominal: float
    observed: float


def calibration(confidence: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = BINS) -> Calibration:
    """The reliability diagram of predictions.

    Args:
        confidence: [n] probability of the predicted class, 0 to 1; n is at least 1.
        correct: [n] whether it was the right one.
        bins: Number of bins of equal width, M.

    Raises:
        ValueError: If there is no prediction, or a confidence is no probability.
    """
    sure = np.asarray(confidence, dtype=np.float64)
    if not len(sure) or len(sure) != len(correct) or not ((sure >= 0) & (sure <= 1)).all():
        raise ValueError(f"{len(sure)} confidences of {len(correct)} predictions; they must lie between 0 and 1")
    edges = np.arange(bins + 1) / bins
    place = np.searchsorted(edges[1:-1], sure, side="left")
    found = [_bin(edges[at], edges[at + 1], sure[place == at], correct[place == at]) for at in range(bins)]
    gaps = {one: abs(one.accuracy - one.confidence) for one in found if one.predictions}
    expected = math.fsum(one.predictions / len(sure) * gap for one, gap in gaps.items())
    return Calibration(tuple(found), expected, max(gaps.values()), len(sure))


def coverage(
    truth: NDArray[np.floating], mean: NDArray[np.floating], spread: NDArray[np.floating]
) -> tuple[Level, ...]:
    """How often targets lie in the central intervals of Gaussians, for each of `LEVELS`.

    Args:
        truth: [n] targets.
        mean: [n] of the Gaussian that was predicted of each.
        spread: [n] its standard deviation.
    """
    apart = np.abs(truth.astype(np.float64) - mean) / spread
    wide = [NormalDist().inv_cdf((1 + level) / 2) for level in LEVELS]
    return tuple(Level(level, float((apart <= z).mean())) for level, z in zip(LEVELS, wide, strict=True))


def _bin(low: float, high: float, confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> Bin:
    if not len(confidence):
        return Bin(float(low), float(high), 0, math.nan, math.nan)
    return Bin(float(low), float(high), len(confidence), float(confidence.mean()), float(correct.mean()))
