"""A column of vectors in a table: a fingerprint, an embedding, a spectrum a row."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from metaray.config import Config
from metaray.containers import opened
from metaray.errors import InputError


class VectorColumn(Config):
    """A column whose cells are vectors of one size.

    All numbers of all vectors are shifted and scaled alike, so that distances between rows keep their proportions.

    Attributes:
        name: Name of the column in tables.
        size: Length of a vector.
        mean: Mean over all numbers of all rows of meta-train, which is subtracted; 0 for no scaling.
        std: Standard deviation over the same numbers, by which the difference is divided; 1 for no scaling.
    """

    name: str = Field(min_length=1)
    size: int = Field(gt=0)
    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)

    def compact(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """[n, size] shifted and scaled."""
        if (self.mean, self.std) == (0.0, 1.0):
            return values.astype(np.float32)
        with np.errstate(over="ignore"):
            # In float64, whatever a table has, as the numbers that learners read are: so are they the same, to the bit.
            found: NDArray[np.float32] = ((values.astype(np.float64) - self.mean) / self.std).astype(np.float32)
        return found

    def read(self, cells: Sequence[object], where: Callable[[int], str]) -> NDArray[np.float64]:
        """Read cells as vectors [n, size]: lists, arrays, or texts such as `[0, 1, 0]` or `0 1 0`.

        Args:
            cells: Cells [n].
            where: Function that returns the name of row i for messages.

        Raises:
            InputError: If a cell holds no vector, one of another length, or one with a number that is not finite; the
                message names the row.
        """
        found = np.empty((len(cells), self.size), dtype=np.float64)
        for row, cell in enumerate(cells):
            found[row] = self._vector(cell, where(row))
        return found

    def _vector(self, cell: object, where: str) -> NDArray[np.float64]:
        given = _listed(cell) if isinstance(cell, str) else opened(cell, f"{where}: {self.name}")
        try:
            found = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError):
            found = np.empty((0, 0))
        if found.ndim != 1:
            raise InputError(f"{where}: {self.name} is {_short(cell)}, but must be a vector of {self.size} numbers")
        if len(found) != self.size:
            raise InputError(f"{where}: {self.name} has {len(found)} numbers, but must have {self.size}")
        if not np.isfinite(found).all():
            place = int(np.flatnonzero(~np.isfinite(found))[0])
            raise InputError(f"{where}: number {place} of {self.name} is {found[place]:g}; give finite numbers")
        return found


def _listed(text: str) -> object:
    """The numbers of a text; the text itself where these are none."""
    stripped = text.strip()
    try:
        if stripped.startswith("["):
            return json.loads(stripped)
        return [float(part) for part in stripped.replace(",", " ").replace(";", " ").split()]
    except (ValueError, RecursionError):
        return text


def _short(cell: object) -> str:
    text = repr(cell)
    return text if len(text) <= 40 else f"{text[:36]} ..."
