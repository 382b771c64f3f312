"""Rows of a table: numbers, some of which may be missing, categories, and vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializationInfo, SerializerFunctionWrapHandler, model_serializer, model_validator

from metaray.config import Config
from metaray.data.preprocessing.preprocessing import Preprocessing, RawInputs
from metaray.data.preprocessing.table_rows import category_text, columns_of, is_missing, rows_of_vectors
from metaray.data.preprocessing.vector_column import VectorColumn
from metaray.data.ragged import Compact
from metaray.errors import InputError
from metaray.imports import EVERY_FIELD
from metaray.tasks.cells import number
from metaray.tasks.column import VECTOR, Column

if TYPE_CHECKING:
    from torch import Tensor

NUMBERS, MISSING, CATEGORIES = "numbers", "missing", "categories"
"""The tensors that a network takes, by name."""


def normal_scores(values: NDArray[np.float64], quantiles: Sequence[float]) -> NDArray[np.float64]:
    """Numbers [n] as those of a standard normal distribution with the same rank among what the quantiles are of.

    Linear between the quantiles. That of rank r of m has the probability (r - 1/2) / m, equal ones that of their mean
    rank; what lies beyond the outermost has their scores, which are +-2.81 of 201 quantiles.

    Args:
        values: [n]; NaN stays.
        quantiles: rising, at equal steps of probability.
    """
    count = len(quantiles)
    points, inverse, times = np.unique(np.array(quantiles), return_inverse=True, return_counts=True)
    ranks = np.bincount(inverse, np.arange(count) + 0.5) / times / count
    scores = [NormalDist().inv_cdf(float(rank)) for rank in ranks]
    found: NDArray[np.float64] = np.interp(values, points, scores)
    return found


class NumberColumn(Config):
    """A column of numbers.

    Attributes:
        name: in tables.
        mean: over the rows of meta-train, subtracted.
        std: over the same, divided by.
        missing: whether rows may lack it; the network then sees a flag, and the mean (or the median) in its place.
        quantiles: over the same, from the least to the greatest, at equal steps of probability: numbers then become
            those of a standard normal distribution with the same rank (`normal_scores`), which no far value exceeds.
            Without them they become (number - mean) / std. Its JSON leaves out that there are none.
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
        """Whether numbers are counted in standard deviations: neither ranked nor as they are."""
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
        """The number in a cell, NaN where there is none.

        Raises:
            InputError: naming `where` it is, if it is none, or missing where no row of the table lacked it.
        """
        if not is_missing(cell, of_numbers=True):
            return number(cell, self.name, where)
        if not self.missing:
            raise InputError(
                f"{where}: {self.name} is missing, but no row lacked it in the table that was learned from"
            )
        return np.nan


class CategoryColumn(Config):
    """A column of categories. Those that meta-train has are numbered from 1; 0 is what is missing or unseen.

    Attributes:
        name: in tables.
        categories: of meta-train, as text.
    """

    name: str = Field(min_length=1)
    categories: tuple[str, ...]

    @property
    def size(self) -> int:
        """How many codes there are."""
        return len(self.categories) + 1

    def codes(self, cells: Sequence[object]) -> NDArray[np.float32]:
        """[n] of each cell."""
        known = {text: code for code, text in enumerate(self.categories, 1)}
        found = [0 if is_missing(cell, of_numbers=False) else known.get(category_text(cell), 0) for cell in cells]
        return np.array(found, dtype=np.float32)


class TablePreprocessing(Preprocessing):
    """Inputs that are rows of a table, whose columns are known by their names.

    The compact form is one vector: standardised numbers, 0 where one is missing; flags of what is missing, 1 or 0, of
    the columns that may be so; the codes of the categories; and the vectors.
    Where there is nothing but numbers of which none may be missing, a network takes these as one tensor, as any vector.
    Otherwise it takes a dict, which lacks what there is nothing of: `numbers` [n, D] with the vectors behind them,
    `missing` [n, M] flags of the columns that may be so, and `categories` [n, C] codes.

    Raw rows are a data frame, an Arrow table, a dict of columns, a list of dicts, or an array or list of rows in the
    order of `columns`; columns that are not asked for may be there as well.

    Attributes:
        numbers: the columns of numbers.
        categories: the columns of categories.
        vectors: the columns of vectors; left out of its JSON where there are none.
    """

    kind: ClassVar[str] = "table"
    input_word: ClassVar[str] = "row"
    compared: ClassVar[str | None] = "standardised columns"

    numbers: tuple[NumberColumn, ...] = ()
    categories: tuple[CategoryColumn, ...] = ()
    vectors: tuple[VectorColumn, ...] = ()

    @model_validator(mode="after")
    def _has_columns(self) -> TablePreprocessing:
        names = [one.name for columns in (self.numbers, self.categories, self.vectors) for one in columns]
        if not names:
            raise ValueError("a table needs at least one column")
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            raise ValueError(f"two columns are named {twice[0]!r}")
        return self

    @model_serializer(mode="wrap")
    def _as_before_vectors(self, write: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        tree: dict[str, Any] = write(self)
        if info.context != EVERY_FIELD and not tree.get("vectors"):
            tree.pop("vectors", None)
        return tree

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """(columns, flags and numbers of vectors,)."""
        return (self._before_vectors + self.vector_size,)

    @property
    def vector_size(self) -> int:
        """How many numbers all vectors of a row have."""
        return sum(column.size for column in self.vectors)

    @property
    def _before_vectors(self) -> int:
        return len(self.numbers) + len(self.flagged) + len(self.categories)

    @property
    def flagged(self) -> list[int]:
        """The places of the columns of numbers that may be missing."""
        return [place for place, column in enumerate(self.numbers) if column.missing]

    @property
    def is_plain(self) -> bool:
        """Whether a network takes one tensor."""
        return not self.categories and not self.flagged

    def normalize(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """[..., columns] to float32 of the same shape, or to the dict of tensors."""
        import torch

        x = x.to(torch.float32)
        if self.is_plain:
            return x
        numbers, flags, end, found = len(self.numbers), len(self.flagged), self._before_vectors, {}
        if numbers and self.vectors:
            found[NUMBERS] = torch.cat([x[..., :numbers], x[..., end:]], dim=-1)
        elif numbers or self.vectors:
            found[NUMBERS] = x[..., :numbers] if numbers else x[..., end:]
        if flags:
            found[MISSING] = x[..., numbers : numbers + flags]
        if self.categories:
            found[CATEGORIES] = x[..., numbers + flags : end].long()
        return found

    def comparable(self, x: Any) -> Tensor:
        """Numbers, flags, and the categories one-hot: what is missing is compared as the mean."""
        import torch
        from torch.nn import functional

        if not isinstance(x, dict):
            found: Tensor = x.flatten(1)
            return found
        parts = [x[name] for name in (NUMBERS, MISSING) if name in x]
        for place, column in enumerate(self.categories):
            parts.append(functional.one_hot(x[CATEGORIES][:, place], column.size).to(torch.float32))
        return torch.cat(parts, dim=1)

    def read(self, x: RawInputs, *, count: int | None = None) -> Compact:
        """See `Preprocessing.read`; bad cells are named."""
        if self._is_one_vector:
            x = rows_of_vectors(x, self.vectors[0].name, self.vectors[0].size)
        cells = columns_of(x, [column.name for column in self.columns])
        return self._compact(cells, lambda row: f"row {row} of x")

    def from_cells(self, rows: Sequence[Sequence[Any]], names: Sequence[str], where: Callable[[int], str]) -> RawInputs:
        """A dict a row, by the columns' own names: numbers, None where one is missing, and the rest as it is."""
        numbers = {column.name: column for column in self.numbers}
        found = []
        for i, row in enumerate(rows):
            tree = dict(zip([column.name for column in self.columns], row, strict=True))
            for name, shown in zip(tree, names, strict=True):
                if name in numbers:
                    place = where(i) if shown == name else f"{where(i)} (column {shown!r})"
                    value = numbers[name].read(tree[name], place)
                    tree[name] = None if np.isnan(value) else value
            found.append(tree)
        return found

    @property
    def columns(self) -> tuple[Column, ...]:
        """The table's own: numbers, categories, vectors."""
        numbers = [Column(column.name, "double") for column in self.numbers]
        categories = [Column(column.name, "string") for column in self.categories]
        return (*numbers, *categories, *(Column(column.name, VECTOR) for column in self.vectors))

    def example_cells(self, share: float) -> list[Any]:
        """Numbers about the mean, and a category that there is."""
        return [
            *(column.mean + (share - 0.5) * column.std for column in self.numbers),
            *(
                one.categories[round(share * (len(one.categories) - 1))] if one.categories else ""
                for one in self.categories
            ),
            *([one.mean + (share - 0.5) * one.std] * one.size for one in self.vectors),
        ]

    def probe(self, count: int, seed: int = 0) -> NDArray[np.float32]:
        """Numbers at random, every other one missing where it may be, and all sorts of categories."""
        generator = np.random.default_rng(seed)
        found = generator.standard_normal((count, *self.feature_shape)).astype(np.float32)
        rows = np.arange(count)
        for flag, place in enumerate(self.flagged):
            missing = (rows + flag) % 2 == 1
            found[missing, place] = 0
            found[:, len(self.numbers) + flag] = missing
        for place, column in enumerate(self.categories, len(self.numbers) + len(self.flagged)):
            found[:, place] = (column.size - 1 - rows) % column.size
        return found

    def joined(
        self,
        values: Mapping[str, NDArray[np.float64]],
        codes: Mapping[str, NDArray[np.float32]],
        vectors: Mapping[str, NDArray[np.float64]] | None = None,
    ) -> NDArray[np.float32]:
        """The compact form [n, columns, flags and numbers of vectors] of what the columns hold, by name.

        Args:
            values: [n] numbers, NaN where they are missing.
            codes: [n] of categories.
            vectors: [n, size] of vectors; not needed where there are none.
        """
        parts = [column.compact(values[column.name]) for column in self.numbers]
        parts += [np.isnan(values[self.numbers[place].name]).astype(np.float32) for place in self.flagged]
        parts += [codes[column.name] for column in self.categories]
        whole = [np.stack(parts, axis=1)] if parts else []
        whole += [column.compact((vectors or {})[column.name]) for column in self.vectors]
        return np.concatenate(whole, axis=1) if len(whole) > 1 else whole[0]

    @property
    def _is_one_vector(self) -> bool:
        return len(self.vectors) == 1 and not self._before_vectors

    def _compact(self, cells: dict[str, list[Any]], where: Callable[[int], str]) -> Compact:
        values = {
            column.name: np.array([column.read(cell, where(row)) for row, cell in enumerate(cells[column.name])])
            for column in self.numbers
        }
        codes = {column.name: column.codes(cells[column.name]) for column in self.categories}
        vectors = {column.name: column.read(cells[column.name], where) for column in self.vectors}
        found = self.joined(values, codes, vectors)
        for row, place in np.argwhere(np.isinf(found))[:1]:
            if place >= len(self.numbers):
                raise InputError(f"{where(row)}: a number of its vectors is too large for 32 bits")
            column = self.numbers[place]
            told = f"{values[column.name][row]:g}, too far from the {column.mean:g} of the table that was learned from"
            raise InputError(f"{where(row)}: {column.name} is {told}")
        return found
