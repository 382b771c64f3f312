"""A column of numbers in a table, standardised or ranked."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from metaray.config import Config
from metaray.data.preprocessing.table_rows import is_missing
from metaray.errors import InputError
from metaray.tasks.cells import number


def normal_scores(values: NDArray[np.float64], quantiles: Sequence[float]) -> NDArray[np.float64]:
    """Numbers [n] as those of a standard normal distribution with the same rank among what the quantiles are of.

    Linear between the quantiles. That of rank r of m has the probability (r - 1/2) / m, equal ones that of their mean
    rank; what lies beyond the outermost has their scores, which are +-2.81 of 201 quantiles.

    Args:
        values: Numbers [n]; NaN stays NaN.
        quantiles: Quantiles at equal steps of probability, ascending.
    """
    count = len(quantiles)
    points, inverse, times = np.unique(np.array(quantiles), return_inverse=True, return_counts=True)
    ranks = np.bincount(inverse, np.arange(count) + 0.5) / times / count
    scores = [NormalDist().inv_cdf(float(rank)) for rank in ranks]
    found: NDArray[np.float64] = np.interp(values, points, scores)
    return found


class NumberColumn(Config):
    """A column of numbers, with its scaling.

    Attributes:
        name: Name of the column in tables.
        mean: Mean over the rows of meta-train, which is subtracted.
        std: Standard deviation over the rows of meta-train, by which the difference is divided.
        missing: Whether cells may be empty; a network then sees a flag, and the mean (or the median) as the number.
        quantiles: Quantiles over the rows of meta-train, from the smallest to the largest number, at equal steps of
            probability. If given, numbers become normal scores of the same rank (`normal_scores`), which no outlier
            exceeds; otherwise (number - mean) / std. Omitted from the JSON if empty.
    """

    name: str = Field(min_length=1)
    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)
    missing: bool = False
    quantiles: tuple[float, ...] = Field(default=(), exclude_if=lambda quantiles: not quantiles)

    @model_validator(mode="after")
    def _rises(self) -> NumberColumn:
        if self.quantiles and (len(self.quantiles) < 3 or list(self.quantiles) != sorted(self.quantiles)):
            raise ValueError(f"quantiles of {self.name!r}: give at least 3 numbers in rising order")
        return self

    @property
    def is_standardised(self) -> bool:
        """Whether numbers are measured in standard deviations, neither ranked nor unscaled."""
        return not self.quantiles and (self.mean, self.std) != (0.0, 1.0)

    def compact(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Standardised; what is missing, a NaN, has the mean's or the median's place, 0."""
        with np.errstate(over="ignore"):
            if self.quantiles:
                found = normal_scores(values, self.quantiles).astype(np.float32)
            else:
                found = ((values - self.mean) / self.std).astype(np.float32)
        return np.where(np.isnan(values), np.float32(0), found)

    def read(self, cell: object, where: str) -> float:
        """The number in a cell; NaN if the cell is empty.

        Raises:
            InputError: If the cell holds no number, or is empty although no row of the table's column was; the message
                names the place `where`.
        """
        if not is_missing(cell, of_numbers=True):
            return number(cell, self.name, where)
        if not self.missing:
            raise InputError(
                f"{where}: {self.name} is missing, but no row lacked it in the table that was learned from"
            )
        return np.nan
