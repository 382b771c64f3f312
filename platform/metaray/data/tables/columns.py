"""What the columns of a raw table hold: numbers or categories, and what meta-train says of either."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

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
    VectorColumn,
)
from metaray.data.preprocessing.labels_column import labels_in
from metaray.data.tables.notation import Decimal, comma_hint, is_date
from metaray.data.tables.raw_table import Batch, RawTable, numbers, texts
from metaray.data.tables.vectors import Scale, Vectors, is_whole, matrix
from metaray.errors import InputError

MOST_CATEGORIES = 100_000
QUANTILES, RANKED_ROWS = 201, 10_000
"""How many quantiles describe a column, and of how many rows of meta-train, drawn at random, they are at most."""

Scaling = Literal["standard", "quantile"]
LEAST_SHARE = 0.1
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
        counts_rows: whether each cell is one more than that before.
        whole: whether all numbers are whole ones that a byte holds.
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
        InputError: a row with a vector that is none, or of another size than the others.
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
        InputError: a column that holds nothing, or texts among numbers, or vectors that are declared categories.
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


@dataclass
class _Moments:
    """Mean and spread of a column, batch by batch (Chan, Golub and LeVeque, 1983)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    ends: set[float] = field(default_factory=set)
    is_binary: bool = True

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
        if self.is_binary:
            low, high = float(values.min()), float(values.max())
            self.ends |= {low, high}
            self.is_binary = len(self.ends) <= 2 and bool(((values == low) | (values == high)).all())

    @property
    def std(self) -> float:
        """1 where nothing varies; of two values at least `LEAST_SHARE` of what lies between them.

        Else a value that hardly any row has would be hundreds of deviations from the mean, and outweigh all else.
        """
        found = (self.squares / self.count) ** 0.5 if self.count else 0.0
        if found <= 1e-12 * max(1.0, abs(self.mean)):
            return 1.0
        return max(found, LEAST_SHARE * (max(self.ends) - min(self.ends))) if self.is_binary else found


@dataclass
class Fit:
    """Fits the preprocessing to the rows of meta-train, batch by batch.

    Args:
        names: of all columns, but that of items.
        categorical: those of categories.
        missing: those of numbers that rows may lack.
        scaling: "standard" makes numbers (number - mean) / std; "quantile" makes them normal scores, which far values
            of heavy-tailed columns do not upset.
        total: rows of meta-train that will be seen.
        as_is: those of numbers and vectors that are not to be standardised.
        sizes: of vectors, by the column.
        separators: of the columns of several labels, by name.
    """

    names: Sequence[str]
    categorical: set[str]
    missing: set[str]
    scaling: Scaling = "standard"
    total: int = 0
    as_is: set[str] = field(default_factory=set)
    sizes: dict[str, int] = field(default_factory=dict)
    separators: Mapping[str, str] = field(default_factory=dict)
    _seen: int = 0
    _moments: dict[str, _Moments] = field(default_factory=dict)
    _scales: dict[str, Scale] = field(default_factory=dict)
    _texts: dict[str, set[str]] = field(default_factory=dict)
    _sample: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)
    _labels: dict[str, Counter[str]] = field(default_factory=dict)

    def see(self, batch: Batch, rows: NDArray[np.bool_]) -> None:
        """Count those of a batch's rows that are of meta-train."""
        mask, ranked = pa.array(rows), self._ranked(int(rows.sum()))
        for name in self.names:
            if name in self.sizes:
                if name not in self.as_is:
                    self._scales.setdefault(name, Scale()).see(matrix(batch.columns[name], self.sizes[name])[rows])
                continue
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
                values = numbers(column, batch.decimal).values
                self._moments.setdefault(name, _Moments()).see(values)
                self._sample.setdefault(name, []).append(values[ranked])

    def preprocessing(self, item: ItemColumn | None = None) -> TablePreprocessing:
        """What was found, columns in the table's order."""
        found = []
        for name in self.names:
            if name not in {*self.categorical, *self.sizes, *self.separators}:
                moments = self._moments[name]
                mean, std = (0.0, 1.0) if name in self.as_is else (moments.mean, moments.std)
                quantiles = () if name in self.as_is else self._quantiles(name)
                found.append(
                    NumberColumn(name=name, mean=mean, std=std, missing=name in self.missing, quantiles=quantiles)
                )
        categories = [
            CategoryColumn(name=name, categories=tuple(sorted(self._texts[name])))
            for name in self.names
            if name in self.categorical
        ]
        vectors = []
        for name, size in self.sizes.items():
            scale = self._scales.get(name)
            mean, std = (0.0, 1.0) if scale is None else (scale.mean, scale.std)
            vectors.append(VectorColumn(name=name, size=size, mean=mean, std=std))
        labels = [
            LabelsColumn(name=name, separator=self.separators[name], labels=tuple(sorted(self._frequent(name))))
            for name in self.names
            if name in self.separators
        ]
        return TablePreprocessing(
            numbers=tuple(found),
            categories=tuple(categories),
            labels=tuple(labels),
            vectors=tuple(vectors),
            item=item,
        )

    def _ranked(self, count: int) -> NDArray[np.int64]:
        """The places of the rows among the next `count` that quantiles are of."""
        if self.scaling == "standard":
            return np.empty(0, dtype=np.int64)
        first, self._seen = self._seen, self._seen + count
        chosen = np.random.default_rng(0).choice(self.total, min(self.total, RANKED_ROWS), replace=False)
        return np.sort(chosen[(chosen >= first) & (chosen < self._seen)]) - first

    def _quantiles(self, name: str) -> tuple[float, ...]:
        known = np.concatenate(self._sample[name])
        known = known[~np.isnan(known)]
        if self.scaling == "standard" or not len(known):
            return ()
        found: list[float] = np.quantile(known, np.linspace(0, 1, QUANTILES)).tolist()
        return tuple(found)

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

    @property
    def dates(self) -> list[str]:
        """The columns of categories that are dates."""
        return [name for name, known in self._texts.items() if known and all(map(is_date, known))]


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
