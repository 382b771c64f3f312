"""Means over episodes with their intervals, and paired differences."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NORMAL_95 = 1.959964


Values = Sequence[float] | NDArray[np.float64]


class Estimate(NamedTuple):
    """A mean over episodes with its 95% interval, mean +- half_width."""

    mean: float
    half_width: float
    episodes: int

    def __str__(self) -> str:
        if self.episodes == 1:
            return f"{self.mean:.4f} (1 episode, which has no interval)"
        return f"{self.mean:.4f} +- {self.half_width:.4f} ({self.episodes} episodes)"

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self.half_width


def estimate(values: Values) -> Estimate:
    """Mean and normal 95% interval of independent values (at least two)."""
    array = np.asarray(values, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # squared errors may be infinite: then the deviation is NaN
        deviation = float(array.std(ddof=1)) if len(array) > 1 else math.nan
        mean = float(array.mean())
    return Estimate(mean, NORMAL_95 * deviation / math.sqrt(len(array)), len(array))


def paired_difference(challenger: Values, champion: Values) -> Estimate:
    """Mean of challenger - champion over episodes that both were evaluated on, in the same order."""
    assert len(challenger) == len(champion)
    with np.errstate(invalid="ignore", over="ignore"):
        return estimate(np.asarray(challenger, dtype=np.float64) - np.asarray(champion, dtype=np.float64))
