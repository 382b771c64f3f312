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
from metaray.data.text_encoding import halves, is_blank
from metaray.errors import InputError
from metaray.numbers import numbers, opened_deep
from metaray.tasks.cells import numbers_of, text
from metaray.tasks.column import Column, numbered

if TYPE_CHECKING:
    from torch import Tensor

RawInputs = Any
"""Anything that a preprocessing reads: one input, or several in any container."""
SPREAD = 7
"""Range of the lengths of a probe's examples."""


class Preprocessing(Config):
    """How inputs are read, stored, normalised, put into tables and compared; stored with every learner.

    A raw input (a path, a text, a row of numbers) is read into its compact form, as a source stores it; `normalize`
    turns that into what the network takes, on the device. A kind of the user's own must define `feature_shape` and
    `normalize`; its defaults are those of vectors: float32 numbers, in columns x0, x1, ..., compared as they are.

    Ragged examples, which differ in length, have a `feature_shape` that begins with None. Their compact form is a dict
    of padded `values` [n, L, ...] and `lengths` [n], see `metaray.data.ragged`; `normalize` makes a mask from the
    lengths. What it makes of the padding must not matter to the network.

    Attributes:
        kind: Name of the kind in files.
        dtype: NumPy data type of the compact form, by name.
        input_word: Word for one raw input, used in messages.
        compared: What the nearest neighbour compares of two inputs, in words; None if there is no such baseline.
        baselines: Baselines besides the nearest neighbour that are useful for such inputs; keys of
            `metaray.algorithms.per_task.BASELINES`.
        takes_folders: Whether raw inputs are files, in a folder for each class; if not, they are rows of CSV files.
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
        """Shape of one compact example; its first axis is None if examples are ragged."""

    @abstractmethod
    def normalize(self, x: Any) -> Tensor | dict[str, Tensor]:
        """Turn compact examples into what the network takes, on their device.

        Args:
            x: Compact examples [..., *feature]; ragged ones as a dict of `values` [..., L, *rest] and `lengths` [...].
                The leading axes are those of examples, or of episodes and examples.

        Returns:
            Floating-point numbers [..., *feature], or a dict of several tensors with the same leading axes.
        """

    def read(self, x: RawInputs, *, count: int | None = None) -> Compact:
        """Read raw inputs into their compact form.

        Args:
            x: The raw inputs, or a single one.
            count: Expected number of inputs, if known; it decides between the possible readings of an array.

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
        """The single inputs in a container, each with its name for messages; a text or a file is one input.

        Raises:
            InputError: If the container is empty.
        """
        given = opened(x, f"{self.input_word}s")
        if isinstance(given, np.ndarray) and given.ndim:
            given = list(given.ravel() if given.dtype.kind in "OUS" and given.shape[1:] == (1,) else given)
        items = given if isinstance(given, list) else [given]
        if not items:
            raise InputError(f"no {self.input_word}s given")
        return [(item, f"{self.input_word} {place}") for place, item in enumerate(items)]

    def texts(self, x: RawInputs) -> list[tuple[str, str]]:
        """The texts in a container, each with its name for messages, as `one_by_one` returns them.

        Raises:
            InputError: If an input is not a text, or is blank; the message names it.
        """
        found = self.one_by_one(x)
        for item, where in found:
            if not isinstance(item, str):
                raise InputError(f"{where} is {described(item)}; give a text")
            if is_blank(item):
                raise InputError(f"{where} is empty")
            if halves(item):
                raise InputError(f"{where} holds half of a surrogate pair, which is no character")
        return [(str(item), where) for item, where in found]

    def packed(self, rows: Sequence[NDArray[Any]]) -> Compact:
        """Batch examples [*feature] that were read one by one: stacked, or padded if they are ragged.

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
        """Random valid examples in compact form, for trying a network.

        Ragged examples have several lengths.

        Args:
            count: Number of examples.
            seed: Seed of the random numbers.
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
        """Lengths of `count` ragged probe examples, no two neighbours of which are equal."""
        return [1 + SPREAD - place % SPREAD for place in range(count)]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The table columns of an input: x, or x0, x1, ..., with the last axis varying fastest.

        Ragged inputs, and inputs that are not floating-point numbers, have one text column named `input_word`.
        """
        shape = self.feature_shape
        if is_ragged(shape) or np.dtype(self.dtype).kind != "f":
            return (Column(self.input_word, "string"),)
        names = numbered("x", math.prod(fixed_shape(shape, self.kind)))
        return tuple(Column(name, "double") for name in names)

    def from_cells(self, rows: Sequence[Sequence[Any]], names: Sequence[str], where: Callable[[int], str]) -> RawInputs:
        """Raw inputs for `read`, from rows of the cells of `columns`, which are text in a CSV file.

        Args:
            rows: Rows [n], each with one cell for each of `columns`.
            names: Names of these columns in the table at hand.
            where: Function that returns the name of row i for messages.

        Raises:
            InputError: If a cell holds no valid input; the message names it.
        """
        columns = self.columns
        if all(column.type == "double" for column in columns):
            return numbers_of(rows, names, where).reshape(-1, *fixed_shape(self.feature_shape, self.kind))
        if len(columns) != 1:
            raise InputError(f"preprocessing {self.kind!r} has several columns: give it a method from_cells")
        found = [text(row[0], names[0], where(i)) for i, row in enumerate(rows)]
        if blank := [i for i, one in enumerate(found) if is_blank(one)]:
            raise InputError(f"{where(blank[0])}: {names[0]} is empty")
        return found

    def example_cells(self, share: float) -> list[Any]:
        """Cells of one valid input, to show what a table holds.

        Args:
            share: Number from 0 to 1; each gives another input.
        """
        return [share if column.type == "double" else f"{column.name} {share:g}" for column in self.columns]

    def comparable(self, x: Any) -> Tensor:
        """The vectors [n, numbers] that the nearest neighbour compares by Euclidean distance.

        By default these are the normalised numbers themselves. A kind with several tensors must override this, or set
        `compared` to None.

        Args:
            x: Inputs as `normalize` returns them.
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


MASK = "mask"
"""Name, among the tensors of padded inputs, of the one [n, L] that is True where there is something."""


def mask_of(compact: dict[str, Tensor]) -> Tensor:
    """[..., L] True where a padded batch holds values."""
    import torch

    values, lengths = compact[VALUES], compact[LENGTHS]
    places = torch.arange(values.shape[lengths.ndim], device=lengths.device)
    found: Tensor = places < lengths[..., None]
    return found


def check_normalisation(mean: tuple[float, ...], std: tuple[float, ...], size: int, what: str) -> None:
    """Check that mean or std is one number, or one for each of `size` channels or features.

    Raises:
        ValueError: If it is not; the message has the numbers.
    """
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, size):
            raise ValueError(f"{name} has {len(values)} numbers for {size} {what}")
    if min(std) <= 0:
        raise ValueError(f"std must be positive, not {min(std)}")
