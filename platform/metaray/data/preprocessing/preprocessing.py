"""The interface of everything that turns a raw input into an example, and that into the numbers a model sees."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from metaray.config import Config
from metaray.containers import described, opened
from metaray.data.ragged import (
    LENGTHS,
    VALUES,
    Compact,
    FeatureShape,
    fixed_shape,
    is_ragged,
    joined,
    padded_length,
    shape_text,
)
from metaray.data.text_encoding import is_blank
from metaray.errors import InputError
from metaray.numbers import numbers, opened_deep
from metaray.tasks.cells import numbers_of, text
from metaray.tasks.column import Column, numbered

if TYPE_CHECKING:
    from torch import Tensor

RawInputs = Any
"""Whatever a preprocessing reads: one input, or several in any container."""
SPREAD = 7
"""How much the lengths of a probe's examples differ."""


class Preprocessing(Config):
    """Owns what an input is: how it is read, kept, normalised, tabled and compared. Stored with every learner.

    A raw input (a path, a text, a row of numbers) is read into its compact form, as a source holds it; that becomes
    what the network takes, on the device. A kind of one's own says `feature_shape` and `normalize`; what else it does
    not say is that of vectors: float32 numbers, in columns x0, x1, ..., compared as they are.

    Examples of unequal length have a `feature_shape` that begins with None. Their compact form is a dict of padded
    `values` [n, L, ...] and `lengths` [n], see `metaray.data.ragged`; `normalize` makes a mask of the lengths, and
    what it makes of the padding must not matter to the network.

    Attributes:
        kind: Its name in files.
        dtype: NumPy's name of the compact form's type.
        input_word: What one raw input is called.
        compared: What the nearest neighbour compares, in words; None offers no such baseline.
        baselines: What else than the nearest neighbour is worth to stand beside scores on such inputs; keys of
            `metaray.algorithms.per_task.BASELINES`.
        takes_folders: Raw inputs are files, a folder a class; else they are rows of CSV files.
    """

    kind: ClassVar[str]
    dtype: ClassVar[str] = "float32"
    input_word: ClassVar[str] = "input"
    compared: ClassVar[str | None] = "inputs"
    baselines: ClassVar[tuple[str, ...]] = ()
    takes_folders: ClassVar[bool] = False

    @property
    @abstractmethod
    def feature_shape(self) -> FeatureShape:
        """The shape of one example, compact; the first axis is None where they are ragged."""

    @abstractmethod
    def normalize(self, x: Any) -> Tensor | dict[str, Tensor]:
        """What the network takes, on the device of what is given.

        Args:
            x: [..., *feature] a compact tensor, of ragged examples the dict of `values` [..., L, *rest] and `lengths`
                [...]; before the axis of examples there may be one of episodes.

        Returns:
            Floating-point numbers [..., *feature]; or several tensors by name, each with the same axes in front.
        """

    def read(self, x: RawInputs, *, count: int | None = None) -> Compact:
        """Raw inputs in their compact form.

        Args:
            x: The inputs, or one of them.
            count: How many there must be, where that is known; decides between readings.

        Raises:
            InputError: If an input cannot be read or has the wrong shape; the message names it.
        """
        shape = self.feature_shape
        if is_ragged(shape):
            rest = fixed_shape(shape[1:], self.kind)
            return self.packed([numbers(row, rest, where) for row, where in self.one_by_one(x)])
        values = opened_deep(x, "x")
        if shape != (1,) and np.shape(values) == shape:
            values = [values]  # one input
        return self._typed(numbers(values, fixed_shape(shape, self.kind), "x"))

    def one_by_one(self, x: RawInputs) -> list[tuple[Any, str]]:
        """The inputs in a container, and the name of each in messages; a text or a file is one input by itself.

        Raises:
            InputError: If there are none.
        """
        given = opened(x, f"{self.input_word}s")
        if isinstance(given, np.ndarray) and given.ndim:
            given = list(given.ravel() if given.dtype.kind in "OUS" and given.shape[1:] == (1,) else given)
        items = given if isinstance(given, list) else [given]
        if not items:
            raise InputError(f"no {self.input_word}s given")
        return [(item, f"{self.input_word} {place}") for place, item in enumerate(items)]

    def texts(self, x: RawInputs) -> list[tuple[str, str]]:
        """The texts in a container, and the name of each in messages, as `one_by_one` gives them.

        Raises:
            InputError: If an input is no text, or blank; the message names it.
        """
        found = self.one_by_one(x)
        for item, where in found:
            if not isinstance(item, str):
                raise InputError(f"{where} is {described(item)}; give a text")
            if is_blank(item):
                raise InputError(f"{where} is empty")
        return [(str(item), where) for item, where in found]

    def packed(self, rows: Sequence[NDArray[Any]]) -> Compact:
        """Examples that were read one by one, of shape [*feature] each, as a batch: stacked, or padded to a length.

        Raises:
            InputError: If an example is empty, too long, or of another shape; the message names it.
        """
        if is_ragged(self.feature_shape):
            found = joined([self._typed(row) for row in rows], self.input_word)
            return found.padded(np.arange(len(rows)), padded_length(int(found.lengths.max())))
        for place, row in enumerate(rows):
            if row.shape != self.feature_shape:
                was, right = list(row.shape), shape_text(self.feature_shape)
                raise InputError(f"{self.input_word} {place} has the shape {was}, but must have {right}")
        return np.stack([self._typed(row) for row in rows])

    def probe(self, count: int, seed: int = 0) -> Compact:
        """Valid examples to try a network with, compact: numbers at random, of any size that inputs may have.

        Ragged ones are to be of several lengths.

        Args:
            count: Number of examples.
            seed: Seed of the numbers.
        """
        if np.dtype(self.dtype).kind != "f":
            raise InputError(
                f"preprocessing {self.kind!r} does not say which {self.dtype} numbers are valid examples: give it a "
                "method probe(count, seed) that returns some"
            )
        generator, shape = np.random.default_rng(seed), self.feature_shape
        if not is_ragged(shape):
            return self._typed(generator.standard_normal((count, *fixed_shape(shape, self.kind))))
        rest = fixed_shape(shape[1:], self.kind)
        return self.packed([generator.standard_normal((length, *rest)) for length in self.probe_lengths(count)])

    @staticmethod
    def probe_lengths(count: int) -> list[int]:
        """Lengths of a ragged probe's examples, of which no two neighbours are the same."""
        return [1 + SPREAD - place % SPREAD for place in range(count)]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of a table that hold an input: x, or x0, x1, ...; of several axes the last varies fastest.

        Ragged inputs, and those that are no floating-point numbers, have one column of text, of the name `input_word`.
        """
        shape = self.feature_shape
        if is_ragged(shape) or np.dtype(self.dtype).kind != "f":
            return (Column(self.input_word, "string"),)
        names = numbered("x", math.prod(fixed_shape(shape, self.kind)))
        return tuple(Column(name, "double") for name in names)

    def from_cells(self, rows: Sequence[Sequence[Any]], names: Sequence[str], where: Callable[[int], str]) -> RawInputs:
        """What `read` takes, from rows of the cells of `columns`; those of a CSV file are texts.

        Args:
            rows: [n] of as many cells as there are columns.
            names: Names that the table at hand has for the columns.
            where: Names row i of these in messages.

        Raises:
            InputError: If a cell holds no such thing; the message names it.
        """
        columns = self.columns
        if all(column.type == "double" for column in columns):
            return numbers_of(rows, names, where).reshape(-1, *fixed_shape(self.feature_shape, self.kind))
        if len(columns) != 1:
            raise InputError(f"preprocessing {self.kind!r} has several columns: give it a method from_cells")
        return [text(row[0], names[0], where(i)) for i, row in enumerate(rows)]

    def example_cells(self, share: float) -> list[Any]:
        """Cells of a valid input, to show what a table holds.

        Args:
            share: 0 to 1; other inputs for others.
        """
        return [share if column.type == "double" else f"{column.name} {share:g}" for column in self.columns]

    def comparable(self, x: Any) -> Tensor:
        """What the nearest neighbour compares, by Euclidean distance: [n, numbers] of what `normalize` made.

        By default the numbers themselves. What has other tensors says what of them to compare, or `compared = None`.
        """
        if isinstance(x, dict):
            raise InputError(
                f"preprocessing {self.kind!r} does not say how its inputs are compared: give it a method "
                "comparable(x), or compared: ClassVar[str | None] = None, which does without that baseline"
            )
        found: Tensor = x.flatten(1)
        return found

    def _typed(self, array: NDArray[Any]) -> NDArray[Any]:
        return array if array.dtype.name == self.dtype else array.astype(self.dtype)


def mask_of(compact: dict[str, Tensor]) -> Tensor:
    """[..., L] True where a padded batch holds values."""
    import torch

    values, lengths = compact[VALUES], compact[LENGTHS]
    places = torch.arange(values.shape[lengths.ndim], device=lengths.device)
    found: Tensor = places < lengths[..., None]
    return found


def check_normalisation(mean: tuple[float, ...], std: tuple[float, ...], size: int, what: str) -> None:
    """Refuse a mean or std that is not one number, or one for each of `size` channels or features.

    Raises:
        ValueError: If it is not; the message has the numbers.
    """
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, size):
            raise ValueError(f"{name} has {len(values)} numbers for {size} {what}")
    if min(std) <= 0:
        raise ValueError(f"std must be positive, not {min(std)}")
