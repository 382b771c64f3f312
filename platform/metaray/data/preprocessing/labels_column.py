"""A column whose cells hold several labels each, such as the genres of a film."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from metaray.config import Config
from metaray.data.preprocessing.table_rows import category_text, is_missing


class LabelsColumn(Config):
    """A column with several labels in a cell, as in "Action|Comedy".

    A network sees a flag for each known label. Unknown labels are ignored, and an empty cell has no label.

    Attributes:
        name: Name of the column in tables.
        separator: Separator of the labels in a cell.
        labels: Labels that are known.
    """

    name: str = Field(min_length=1)
    separator: str = Field(min_length=1)
    labels: tuple[str, ...]

    @field_validator("labels")
    @classmethod
    def _are_different(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) < len(labels):
            raise ValueError("a label is there twice")
        return labels

    def compact(self, cells: Sequence[object]) -> NDArray[np.float32]:
        """Flags of the labels in cells, [n, labels], as 0 and 1."""
        place_of = {label: place for place, label in enumerate(self.labels)}
        found = np.zeros((len(cells), len(self.labels)), dtype=np.float32)
        known: dict[str, list[int]] = {}
        for row, cell in enumerate(cells):
            text = "" if is_missing(cell, of_numbers=False) else category_text(cell)
            if text not in known:
                known[text] = [place_of[one] for one in labels_in(text, self.separator) if one in place_of]
            found[row, known[text]] = 1
        return found


def labels_in(text: str, separator: str) -> list[str]:
    """The labels of a cell, trimmed."""
    return [label.strip() for label in text.split(separator) if label.strip()]
