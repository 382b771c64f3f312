"""A column of categories in a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from metaray.config import Config
from metaray.data.preprocessing.table_rows import code_of


class CategoryColumn(Config):
    """A column of categories. Those that meta-train has are numbered from 1; 0 is what is missing or unseen.

    Attributes:
        name: Name of the column in tables.
        categories: Categories of meta-train, as text.
    """

    name: str = Field(min_length=1)
    categories: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of codes."""
        return len(self.categories) + 1

    def codes(self, cells: Sequence[object]) -> NDArray[np.float32]:
        """Codes of the cells, [n]."""
        known = {text: code for code, text in enumerate(self.categories, 1)}
        return np.array([code_of(cell, known) for cell in cells], dtype=np.float32)
