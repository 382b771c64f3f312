"""What the columns of a raw table hold: numbers or categories, and what meta-train says of either."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from metaray.data.preprocessing import (
    CategoryColumn,
    ItemColumn,
    ItemRows,
    LabelsColumn,
    NumberColumn,
    TablePreprocessing,
)
from metaray.data.preprocessing.labels_column import labels_in
from metaray.data.tables.raw_table import Batch, RawTable, numbers, texts
from metaray.errors import InputError

MOST_CATEGORIES = 100_000
MOST_LABELS = 256
"""Of a column; beyond these the rarest are left out."""


@dataclass
class Content:
    """What a column was found to hold.

    Attributes:
        numbers: cells with a finite number.
        others: cells with something else.
        lacking: cells with nothing.
        example: the first of the others, and its row.
    """

    numbers: int = 0
    others: int = 0
    lacking: int = 0
    example: tuple[str, int] = ("", 0)

    def see(self, column: Any, first: int) -> None:
        """Count the cells of a batch, whose first row has the number `first`."""
        found = numbers(column)
        bad = np.flatnonzero(found.bad)
        if len(bad) and not self.others:
            self.example = (str(column[int(bad[0])].as_py()), first + int(bad[0]))
        self.others += len(bad)
        self.lacking += int(found.lacking.sum())
        self.numbers += len(column) - len(bad) - int(found.lacking.sum())


def look(table: RawTable, names: Sequence[str]) -> dict[str, Content]:
    """Read some columns once."""
    found = {name: Content() for name in names}
    for batch in table.batches(names):
        for name in names:
            found[name].see(batch.columns[name], batch.first)
    return found


def categorical_of(table: RawTable, found: dict[str, Content], declared: Sequence[str]) -> set[str]:
    """The columns of categories: those that are declared so, and those that hold no number at all.

    Raises:
        InputError: a column that holds nothing, or texts among numbers.
    """
    chosen = set(declared)
    for name, content in found.items():
        if not content.numbers and not content.others:
            raise InputError(f"{table.path}: column {name!r} is empty in every row; leave it out: --leave-out {name!r}")
        if name in chosen or not content.others:
            continue
        if content.numbers:
            text, row = content.example
            raise InputError(
                f"{table.where(row)}: {name} is {text!r}, but {content.numbers} other cells of the column hold numbers "
                f"(of {content.others} this is the first that does not); correct it, or say --categorical {name!r} or "
                f"--leave-out {name!r}"
            )
        chosen.add(name)
    return chosen


@dataclass
class _Moments:
    """Mean and spread of a column, batch by batch (Chan, Golub and LeVeque, 1983)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def see(self, values: NDArray[np.float64]) -> None:
        """Count the values that are not NaN."""
        values = values[~np.isnan(values)]
        if not len(values):
            return
        mean, total = float(values.mean()), self.count + len(values)
        apart = mean - self.mean
        self.squares += float(((values - mean) ** 2).sum()) + apart**2 * self.count * len(values) / total
        self.mean += apart * len(values) / total
        self.count = total

    @property
    def std(self) -> float:
        """1 where nothing varies."""
        found = (self.squares / self.count) ** 0.5 if self.count else 0.0
        return found if found > 1e-12 * max(1.0, abs(self.mean)) else 1.0


@dataclass
class Fit:
    """Fits the preprocessing to the rows of meta-train, batch by batch.

    Args:
        names: of all columns, but that of items.
        categorical: those of categories.
        missing: those of numbers that rows may lack.
        separators: of the columns of several labels, by name.
    """

    names: Sequence[str]
    categorical: set[str]
    missing: set[str]
    separators: Mapping[str, str] = field(default_factory=dict)
    _moments: dict[str, _Moments] = field(default_factory=dict)
    _texts: dict[str, set[str]] = field(default_factory=dict)
    _labels: dict[str, Counter[str]] = field(default_factory=dict)

    def see(self, batch: Batch, rows: NDArray[np.bool_]) -> None:
        """Count those of a batch's rows that are of meta-train."""
        mask = pa.array(rows)
        for name in self.names:
            column = batch.columns[name].filter(mask)
            if name in self.separators:
                self._labels.setdefault(name, Counter()).update(_labels_of(column, self.separators[name]))
            elif name in self.categorical:
                known = self._texts.setdefault(name, set())
                known.update(text for text in pc.unique(texts(column)).to_pylist() if text is not None)
                if len(known) > MOST_CATEGORIES:
                    raise InputError(
                        f"column {name!r} has more than {MOST_CATEGORIES:,} categories; leave it out: "
                        f"--leave-out {name!r}"
                    )
            else:
                self._moments.setdefault(name, _Moments()).see(numbers(column).values)

    def preprocessing(self, item: ItemColumn | None = None) -> TablePreprocessing:
        """What was found, columns in the table's order."""
        found = [
            NumberColumn(
                name=name, mean=self._moments[name].mean, std=self._moments[name].std, missing=name in self.missing
            )
            for name in self.names
            if name not in self.categorical and name not in self.separators
        ]
        categories = [
            CategoryColumn(name=name, categories=tuple(sorted(self._texts[name])))
            for name in self.names
            if name in self.categorical
        ]
        labels = [
            LabelsColumn(name=name, separator=self.separators[name], labels=tuple(sorted(self._frequent(name))))
            for name in self.names
            if name in self.separators
        ]
        return TablePreprocessing(numbers=tuple(found), categories=tuple(categories), labels=tuple(labels), item=item)

    def _frequent(self, name: str) -> list[str]:
        """The labels that most rows have; of equals the first in the alphabet."""
        counts = self._labels[name]
        return sorted(counts, key=lambda label: (-counts[label], label))[:MOST_LABELS]

    @property
    def left_out(self) -> list[str]:
        """Sentences about labels that are too many."""
        return [
            f"{name!r} has {len(counts)} labels in meta-train; the {MOST_LABELS} of most rows are seen"
            for name, counts in self._labels.items()
            if len(counts) > MOST_LABELS
        ]

    @property
    def constant(self) -> list[str]:
        """The columns that say nothing: of one value throughout meta-train."""
        still = [name for name, moments in self._moments.items() if moments.std == 1.0 and moments.squares < 1e-12]
        still += [name for name, counts in self._labels.items() if not counts]
        return still + [name for name, known in self._texts.items() if len(known) < 2]


def _labels_of(column: Any, separator: str) -> Counter[str]:
    """How many rows have each label."""
    found: Counter[str] = Counter()
    for one in pc.value_counts(texts(column)).to_pylist():
        for label in set(labels_in(one["values"] or "", separator)):
            found[label] += one["counts"]
    return found


def compact(
    preprocessing: TablePreprocessing, batch: Batch, where: str, items: ItemRows | None = None
) -> NDArray[np.float32]:
    """The rows of a batch as the file holds them, [n, columns and flags], `items` where there is a column of them.

    Raises:
        InputError: naming `where`, for numbers too large for 32 bits.
    """
    values = {one.name: numbers(batch.columns[one.name]).values for one in preprocessing.numbers}
    codes = {}
    for one in preprocessing.categories:
        places = pc.index_in(texts(batch.columns[one.name]), value_set=pa.array(one.categories, pa.string()))
        codes[one.name] = (np.asarray(pc.fill_null(places, -1)) + 1).astype(np.float32)
    labels = {one.name: one.compact(texts(batch.columns[one.name]).to_pylist()) for one in preprocessing.labels}
    found: NDArray[np.float32] = preprocessing.joined(values, codes, labels, items)
    if np.isinf(found).any():
        name = preprocessing.numbers[int(np.argwhere(np.isinf(found))[0][1])].name
        raise InputError(f"{where}: column {name!r} holds numbers too far apart for 32 bits")
    return found
