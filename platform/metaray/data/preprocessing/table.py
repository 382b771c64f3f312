"""Rows of a table: numbers that may be missing, categories, several labels a cell, vectors, and items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from metaray.data.preprocessing.category_column import CategoryColumn
from metaray.data.preprocessing.items import ItemColumn, ItemRows
from metaray.data.preprocessing.labels_column import LabelsColumn
from metaray.data.preprocessing.number_column import NumberColumn
from metaray.data.preprocessing.preprocessing import Preprocessing, RawInputs
from metaray.data.preprocessing.table_rows import columns_of, rows_of_vectors
from metaray.data.preprocessing.vector_column import VectorColumn
from metaray.data.ragged import Compact
from metaray.errors import InputError
from metaray.tasks.column import VECTOR, Column

if TYPE_CHECKING:
    from torch import Tensor

NUMBERS, MISSING, CATEGORIES, LABELS, VECTORS, ITEM, ITEM_CODE = (
    "numbers",
    "missing",
    "categories",
    "labels",
    "vectors",
    "item",
    "item_code",
)
"""The tensors that a network takes, by name."""
IN_ORDER = (NUMBERS, MISSING, CATEGORIES, LABELS, VECTORS, ITEM)
"""Kinds of columns in their order in the compact form, before the code of the item."""


class TablePreprocessing(Preprocessing):
    """Preprocessing of the rows of a table, whose columns are known by name.

    The compact form is one vector: standardised numbers, with 0 for a missing one; flags, 1 or 0, of missing cells for
    the columns that may have them; codes of categories; flags of labels; vectors; and the two numbers and the code of
    the item, see `ItemColumn`.

    If there are only numbers that are never missing, or only vectors, a network takes one tensor. Otherwise it takes a
    dict of those that exist: `numbers` [n, D], `missing` [n, M] flags of missing cells, `categories` [n, C] codes,
    `labels` [n, L] flags, `vectors` [n, V] concatenated, `item` [n, 2] its standardised mean and number, and
    `item_code` [n].

    Raw rows are a data frame, an Arrow table, a dict of columns, a list of dicts, or an array or list of rows in the
    order of `columns`; further columns are ignored.

    Attributes:
        numbers: The columns of numbers.
        categories: The columns of categories.
        labels: The columns with several labels in a cell; omitted from the JSON if empty.
        vectors: The columns of vectors; omitted from the JSON if empty.
        item: The column that names an item which groups share; omitted from the JSON if None.
    """

    kind: ClassVar[str] = "table"
    input_word: ClassVar[str] = "row"
    compared: ClassVar[str | None] = "standardised columns"

    numbers: tuple[NumberColumn, ...] = ()
    categories: tuple[CategoryColumn, ...] = ()
    labels: tuple[LabelsColumn, ...] = Field(default=(), exclude_if=lambda labels: not labels)
    vectors: tuple[VectorColumn, ...] = Field(default=(), exclude_if=lambda vectors: not vectors)
    item: ItemColumn | None = Field(default=None, exclude_if=lambda item: item is None)

    @model_validator(mode="after")
    def _has_columns(self) -> TablePreprocessing:
        names = [column.name for column in self.columns]
        if not names:
            raise ValueError("a table needs at least one column")
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            raise ValueError(f"two columns are named {twice[0]!r}")
        return self

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """(numbers of the compact form,)."""
        return (self._starts[-1],)

    @property
    def flagged(self) -> list[int]:
        """The places of the columns of numbers that may be missing."""
        return [place for place, column in enumerate(self.numbers) if column.missing]

    @property
    def is_plain(self) -> bool:
        """Whether a network takes one tensor instead of a dict."""
        others = self.categories or self.flagged or self.labels or self.item is not None
        return not others and not (self.numbers and self.vectors)

    def normalize(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """[..., columns] to float32 of the same shape, or to the dict of tensors."""
        import torch

        x = x.to(torch.float32)
        if self.is_plain:
            return x
        found = {
            name: x[..., start:end]
            for name, start, end in zip(IN_ORDER, self._starts, self._starts[1:], strict=False)
            if end > start
        }
        if CATEGORIES in found:
            found[CATEGORIES] = found[CATEGORIES].long()
        if self.item is not None:
            found[ITEM_CODE] = x[..., -1].long()
        return found

    def comparable(self, x: Any) -> Tensor:
        """Numbers, flags, labels, vectors, item numbers, and one-hot categories, [n, numbers].

        Missing numbers count as the mean.
        """
        import torch
        from torch.nn import functional

        if not isinstance(x, dict):
            found: Tensor = x.flatten(1)
            return found
        parts = [x[name] for name in IN_ORDER if name in x and name != CATEGORIES]
        for place, column in enumerate(self.categories):
            parts.append(functional.one_hot(x[CATEGORIES][:, place], column.size).to(torch.float32))
        return torch.cat(parts, dim=1)

    def read(self, x: RawInputs, *, count: int | None = None) -> Compact:
        """See `Preprocessing.read`; bad cells are named."""
        if len(self.vectors) == 1 and len(self.columns) == 1:
            x = rows_of_vectors(x, self.vectors[0].name, self.vectors[0].size)
        cells = columns_of(x, [column.name for column in self.columns])
        return self._compact(cells, lambda row: f"row {row} of x")

    def from_cells(self, rows: Sequence[Sequence[Any]], names: Sequence[str], where: Callable[[int], str]) -> RawInputs:
        """A dict for each row, by column name; missing numbers are None."""
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
        """The table's own: numbers, then categories, labels, vectors and the item."""
        return (
            *(Column(one.name, "double") for one in self.numbers),
            *(Column(one.name, "string") for one in self.categories),
            *(Column(one.name, "string") for one in self.labels),
            *(Column(one.name, VECTOR) for one in self.vectors),
            *([] if self.item is None else [Column(self.item.name, "string")]),
        )

    def example_cells(self, share: float) -> list[Any]:
        """Cells of a valid row: numbers near the mean, and a known category, label and item."""

        def one_of(texts: Sequence[str]) -> str:
            return texts[round(share * (len(texts) - 1))] if texts else ""

        return [
            *(column.mean + (share - 0.5) * column.std for column in self.numbers),
            *(one_of(column.categories) for column in self.categories),
            *(one_of(column.labels) for column in self.labels),
            *([one.mean + (share - 0.5) * one.std] * one.size for one in self.vectors),
            *([] if self.item is None else [one_of(self.item.items)]),
        ]

    def probe(self, count: int, seed: int = 0) -> NDArray[np.float32]:
        """Random rows, with missing numbers in every other row if allowed, and all categories."""
        generator = np.random.default_rng(seed)
        found = generator.standard_normal((count, *self.feature_shape)).astype(np.float32)
        rows = np.arange(count)
        for flag, place in enumerate(self.flagged):
            missing = (rows + flag) % 2 == 1
            found[missing, place] = 0
            found[:, len(self.numbers) + flag] = missing
        for place, column in enumerate(self.categories, len(self.numbers) + len(self.flagged)):
            found[:, place] = (column.size - 1 - rows) % column.size
        start, end = self._starts[IN_ORDER.index(LABELS) :][:2]
        found[:, start:end] = found[:, start:end] > 0
        if self.item is not None:
            found[:, -1] = (self.item.size - 1 - rows) % self.item.size
        return found

    def joined(
        self,
        values: Mapping[str, NDArray[np.float64]],
        codes: Mapping[str, NDArray[np.float32]],
        labels: Mapping[str, NDArray[np.float32]],
        vectors: Mapping[str, NDArray[np.float64]],
        items: ItemRows | None,
    ) -> NDArray[np.float32]:
        """The compact form [n, ...] of the columns' contents, by column name.

        Args:
            values: Numbers [n], NaN if missing.
            codes: Codes [n] of categories.
            labels: Flags [n, labels] of labels.
            vectors: Vectors [n, size].
            items: Statistics of the rows' items, if there is a column of items.
        """
        parts = [column.compact(values[column.name]) for column in self.numbers]
        parts += [np.isnan(values[self.numbers[place].name]).astype(np.float32) for place in self.flagged]
        parts += [codes[column.name] for column in self.categories]
        parts += [labels[column.name] for column in self.labels]
        parts += [column.compact(vectors[column.name]) for column in self.vectors]
        if self.item is not None:
            assert items is not None
            parts.append(self.item.compact(items))
        found: NDArray[np.float32] = parts[0] if parts[0].ndim == 2 and len(parts) == 1 else np.column_stack(parts)
        return found

    @property
    def _starts(self) -> list[int]:
        """Where each part of the compact form begins, in the order of `IN_ORDER`; then where the codes of items do, and
        where all ends."""
        labels = sum(len(column.labels) for column in self.labels)
        vectors = sum(column.size for column in self.vectors)
        sizes = [len(self.numbers), len(self.flagged), len(self.categories), labels, vectors]
        sizes += [0, 0] if self.item is None else [2, 1]
        return [sum(sizes[:part]) for part in range(len(sizes) + 1)]

    def _compact(self, cells: dict[str, list[Any]], where: Callable[[int], str]) -> Compact:
        values = {
            column.name: np.array([column.read(cell, where(row)) for row, cell in enumerate(cells[column.name])])
            for column in self.numbers
        }
        found = self.joined(
            values,
            {column.name: column.codes(cells[column.name]) for column in self.categories},
            {column.name: column.compact(cells[column.name]) for column in self.labels},
            {column.name: column.read(cells[column.name], where) for column in self.vectors},
            None if self.item is None else self.item.look_up(cells[self.item.name]),
        )
        for row, place in np.argwhere(np.isinf(found))[:1]:
            if place >= len(self.numbers):
                raise InputError(f"{where(row)}: a number of its vectors is too large for 32 bits")
            column = self.numbers[place]
            told = f"{values[column.name][row]:g}, too far from the {column.mean:g} of the table that was learned from"
            raise InputError(f"{where(row)}: {column.name} is {told}")
        return found
