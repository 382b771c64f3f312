"""What meta-train says of the columns of a raw table, batch by batch."""

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
    LabelsColumn,
    NumberColumn,
    TablePreprocessing,
    VectorColumn,
)
from metaray.data.preprocessing.labels_column import labels_in
from metaray.data.tables.notation import is_date
from metaray.data.tables.raw_table import Batch, numbers, texts
from metaray.data.tables.vectors import Scale, matrix
from metaray.errors import InputError

MOST_CATEGORIES = 100_000
QUANTILES, RANKED_ROWS = 201, 10_000
"""How many quantiles describe a column, and of how many rows of meta-train, drawn at random, they are at most."""

Scaling = Literal["standard", "quantile"]
LEAST_SHARE = 0.1
MOST_LABELS = 256
"""Labels of a column that are seen; beyond these the rarest are left out."""


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
        names: Names of all columns, but that of items.
        categorical: Those of categories.
        missing: Those of numbers that rows may lack.
        scaling: "standard" makes numbers (number - mean) / std; "quantile" makes them normal scores, which far values
            of heavy-tailed columns do not upset.
        total: Rows of meta-train that will be seen.
        as_is: Those of numbers and vectors that are not to be standardised.
        sizes: Length of the vectors of each column that holds some.
        separators: Separator of each column of several labels, by its name.
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
