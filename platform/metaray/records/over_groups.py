"""Means over groups with their intervals: what episodes say where many of them are of the same few patients or assays.

Episodes of one group share what is particular about it, so their number does not make an interval narrow: what is
independent are the groups. The mean of each group's mean counts every group alike, and its interval is that of
Student's t over the groups.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metaray.records.estimate import NORMAL_95, Values

LARGE = 1000
"""Degrees of freedom from which on the quantile is computed by an expansion about the normal quantile."""


class GroupEstimate(NamedTuple):
    """The mean of group means with its 95% interval over groups, mean +- half_width; NaN for a single group."""

    mean: float
    half_width: float
    groups: int

    def __str__(self) -> str:
        if self.groups == 1:
            return f"{self.mean:.4f} (1 group, which has no interval)"
        return f"{self.mean:.4f} +- {self.half_width:.4f} ({self.groups} groups)"


def over_groups(values: Values, groups: Sequence[str]) -> GroupEstimate:
    """The mean of group means, with Student's t interval over groups.

    Args:
        values: Value of each episode.
        groups: Name of the group of each episode.
    """
    _, place = np.unique(np.asarray(groups), return_inverse=True)
    counts = np.bincount(place)
    with np.errstate(invalid="ignore", over="ignore"):
        means = np.bincount(place, weights=np.asarray(values, dtype=np.float64)) / counts
        mean = float(means.mean())
        deviation = float(means.std(ddof=1)) if len(means) > 1 else math.nan
    if len(means) == 1:
        return GroupEstimate(mean, math.nan, 1)
    return GroupEstimate(mean, student_95(len(means) - 1) * deviation / math.sqrt(len(means)), len(means))


def student_95(degrees: int) -> float:
    """The 97.5% quantile of Student's t distribution (12.706 for one degree of freedom, 1.960 for many)."""
    if degrees >= LARGE:
        return NORMAL_95 + (NORMAL_95**3 + NORMAL_95) / (4 * degrees)
    low, high = 0.0, 13.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, degrees) < 0.95 else (low, middle)
    return low


def _inside(t: float, degrees: int) -> float:
    """The share of Student's t between -t and t (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    if degrees == 1:
        return 2 * angle / math.pi
    odd = degrees % 2
    term = total = cosine if odd else 1.0
    for k in range(2 if odd else 1, degrees - 2, 2):
        term *= cosine**2 * k / (k + 1)
        total += term
    return 2 * (angle + sine * total) / math.pi if odd else sine * total
