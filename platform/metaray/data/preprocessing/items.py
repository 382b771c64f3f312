"""Items that the rows of many groups share, such as films: what meta-train says of each of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from metaray.config import Config
from metaray.data.preprocessing.table_rows import code_of

if TYPE_CHECKING:
    from torch import Tensor


class ItemRows(NamedTuple):
    """Statistics of the items of n rows.

    Attributes:
        codes: Codes [n] of the items, from 1; 0 for an item that is not in meta-train, or for none.
        sums: Sums [n] of each item's targets in meta-train, in their original units.
        counts: Numbers [n] of these targets.
    """

    codes: NDArray[np.int64]
    sums: NDArray[np.float64]
    counts: NDArray[np.int64]


class ItemColumn(Config):
    """A column that names an item, with the sum and number of each item's targets in meta-train.

    A network sees of a row's item its mean and log(1 + number), both standardised, and its code. The mean of n targets
    is (sum + shrinkage * global_mean) / (n + shrinkage): few of them say little (empirical Bayes; Efron and Morris,
    1975). Of rows of meta-train the targets of their own group are left out, or the mean would tell the target. An item
    that meta-train has not has the global mean and the number 0.

    Attributes:
        name: Name of the column in tables.
        items: Items of meta-train, as distinct texts.
        sums: Sum of the targets of each item.
        counts: Number of these targets of each item, at least 1.
        global_mean: Mean of all targets of meta-train.
        shrinkage: Ratio of the variance within items to that between items.
        offset_shrinkage: Ratio of the variance of a group's differences to its items' means, to the variance of the
            mean difference between groups.
        mean_of_means: Mean of the shrunk means over the rows of meta-train, subtracted from them.
        std_of_means: Standard deviation by which they are then divided.
        mean_of_logs: Mean of log(1 + number) over the rows of meta-train, subtracted from them.
        std_of_logs: Standard deviation by which they are then divided.
    """

    name: str = Field(min_length=1)
    items: tuple[str, ...]
    sums: tuple[float, ...]
    counts: tuple[int, ...]
    global_mean: float
    shrinkage: float = Field(ge=0)
    offset_shrinkage: float = Field(ge=0)
    mean_of_means: float = 0.0
    std_of_means: float = Field(default=1.0, gt=0)
    mean_of_logs: float = 0.0
    std_of_logs: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _fits_together(self) -> ItemColumn:
        if not len(self.items) == len(self.sums) == len(self.counts):
            raise ValueError(f"{len(self.items)} items, {len(self.sums)} sums and {len(self.counts)} counts")
        if len(set(self.items)) < len(self.items):
            raise ValueError("an item is there twice")
        if not 1 <= min(self.counts, default=1) <= max(self.counts, default=1) < 2**53:
            raise ValueError("an item of meta-train has at least one target, and fewer than 2**53")
        return self

    @property
    def size(self) -> int:
        """Number of codes."""
        return len(self.items) + 1

    def look_up(self, cells: Sequence[object]) -> ItemRows:
        """The statistics of meta-train for the items in cells."""
        codes = np.array(
            [code_of(cell, self._code_of) for cell in cells],
            dtype=np.int64,
        )
        return ItemRows(codes, self._sums[codes], self._counts[codes])

    def means(self, rows: ItemRows) -> NDArray[np.float64]:
        """[n] the shrunk mean of each row's item."""
        number = rows.counts + self.shrinkage
        with np.errstate(invalid="ignore"):
            found = (rows.sums + self.shrinkage * self.global_mean) / number
        return np.where(number > 0, found, self.global_mean)

    def compact(self, rows: ItemRows) -> NDArray[np.float32]:
        """[n, 3] the mean and log(1 + number), standardised, and the code."""
        means = (self.means(rows) - self.mean_of_means) / self.std_of_means
        logs = (np.log1p(rows.counts) - self.mean_of_logs) / self.std_of_logs
        return np.column_stack([means, logs, rows.codes]).astype(np.float32)

    def means_of(self, statistics: Tensor) -> Tensor:
        """[n] the shrunk means, in the targets' own units, in what a network sees, [n, 2]."""
        return statistics[:, 0] * self.std_of_means + self.mean_of_means

    @cached_property
    def _code_of(self) -> dict[str, int]:
        return {item: code for code, item in enumerate(self.items, 1)}

    @cached_property
    def _sums(self) -> NDArray[np.float64]:
        return np.array([0.0, *self.sums])

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        return np.array([0, *self.counts], dtype=np.int64)
