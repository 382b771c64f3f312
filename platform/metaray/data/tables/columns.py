"""What the columns of a raw table hold: numbers, categories, labels or vectors; and their rows in the compact form."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from metaray.data.preprocessing import (
    ItemRows,
    TablePreprocessing,
)
from metaray.data.tables.notation import Decimal, comma_hint
from metaray.data.tables.raw_table import Batch, RawTable, numbers, texts
from metaray.data.tables.vectors import Vectors, is_whole, matrix
from metaray.errors import InputError


@dataclass
class Content:
    """What a column was found to hold.

    Attributes:
        numbers: Cells with a finite number.
        others: Cells with something else.
        lacking: Cells with nothing.
        example: The first of the others, and its row.
        counts_rows: Whether each cell is one more than that before.
        whole: Whether all numbers are whole ones that a byte holds.
    """

    numbers: int = 0
    others: int = 0
    lacking: int = 0
    example: tuple[str, int] = ("", 0)
    counts_rows: bool = True
    _last: float = np.nan
    whole: bool = True

    @property
    def cells(self) -> int:
        """All of them."""
        return self.numbers + self.others + self.lacking

    def see(self, column: Any, first: int, decimal: Decimal = ".") -> None:
        """Count the cells of a batch, whose first row has the number `first`."""
        found = numbers(column, decimal)
        bad = np.flatnonzero(found.bad)
        if len(bad) and not self.others:
            self.example = (str(column[int(bad[0])].as_py()), first + int(bad[0]))
        self.others += len(bad)
        self.lacking += int(found.lacking.sum())
        steps = np.diff(found.values, prepend=self._last)
        self.counts_rows &= bool((steps[int(np.isnan(self._last)) :] == 1).all())
        self._last = float(found.values[-1])
        self.numbers += len(column) - len(bad) - int(found.lacking.sum())
        self.whole = self.whole and is_whole(found.values)


def look(table: RawTable, names: Sequence[str]) -> dict[str, Content | Vectors]:
    """Read some columns once.

    Raises:
        InputError: A row with a vector that is none, or of another size than the others.
    """
    vectors = table.vectors_among(names)
    found = {name: Vectors(name, str(table.path)) if name in vectors else Content() for name in names}
    for batch in table.batches(names):
        for name in names:
            one = found[name]
            if isinstance(one, Vectors):
                one.see(batch.columns[name], batch.first)
            else:
                one.see(batch.columns[name], batch.first, batch.decimal)
    return found


def categorical_of(table: RawTable, found: dict[str, Content | Vectors], declared: Sequence[str]) -> set[str]:
    """The columns of categories: those that are declared so, and those that hold no number at all.

    Raises:
        InputError: A column that holds nothing, or texts among numbers, or vectors that are declared categories.
    """
    chosen = set(declared)
    for name, content in found.items():
        if isinstance(content, Vectors):
            if name in chosen:
                raise InputError(f"column {name!r} holds vectors, which are no categories, labels or items")
            continue
        if not content.numbers and not content.others:
            raise InputError(f"{table.path}: column {name!r} is empty in every row; leave it out: --leave-out {name!r}")
        if name in chosen or not content.others:
            continue
        text, row = content.example
        if not content.numbers and comma_hint(text, table.decimal):
            raise InputError(
                f"{table.where(row)}: {name} is {text!r}{comma_hint(text, table.decimal)}; if it is a name, say "
                f"--categorical {name!r}"
            )
        if content.numbers:
            raise InputError(
                f"{table.where(row)}: {name} is {text!r}, but {content.numbers} other cells of the column hold numbers "
                f"(of {content.others} this is the first that does not); correct it, or say --categorical {name!r} or "
                f"--leave-out {name!r}{comma_hint(text, table.decimal)}"
            )
        chosen.add(name)
    return chosen


def compact(
    preprocessing: TablePreprocessing, batch: Batch, where: str, items: ItemRows | None = None
) -> NDArray[np.float32]:
    """The rows of a batch as the file holds them, [n, columns and flags], `items` where there is a column of them.

    Raises:
        InputError: If numbers are too large for 32 bits; the message names `where`.
    """
    values = {one.name: numbers(batch.columns[one.name], batch.decimal).values for one in preprocessing.numbers}
    codes = {}
    for one in preprocessing.categories:
        places = pc.index_in(texts(batch.columns[one.name]), value_set=pa.array(one.categories, pa.string()))
        codes[one.name] = (np.asarray(pc.fill_null(places, -1)) + 1).astype(np.float32)
    vectors = {one.name: matrix(batch.columns[one.name], one.size) for one in preprocessing.vectors}
    labels = {one.name: one.compact(texts(batch.columns[one.name]).to_pylist()) for one in preprocessing.labels}
    found: NDArray[np.float32] = preprocessing.joined(values, codes, labels, vectors, items)
    if np.isinf(found).any():
        place = int(np.argwhere(np.isinf(found))[0][1])
        name = (preprocessing.numbers[place] if place < len(values) else preprocessing.vectors[0]).name
        raise InputError(f"{where}: column {name!r} holds numbers too far apart for 32 bits")
    return found
