"""What kinds of task share whose targets are classes: predictions are logits, one a class."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from metaray.errors import InputError
from metaray.tasks.cells import text
from metaray.tasks.column import Column
from metaray.tasks.task_kind import TaskKind

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

MAP = "map"
"""Type of a column whose cells are mappings from text to numbers, which MLflow has no name for."""

TARGETS = (Column("label", "string", required=False),)
PREDICTIONS = (
    Column("label", "string"),
    Column("probability", "double"),
    Column("probabilities", "string"),
    Column("distribution", MAP),
)


def cross_entropy(output: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
    """Mean cross-entropy of logits [n, classes] for labels [n], weighted if asked."""
    from torch.nn import functional

    if weights is None:
        return functional.cross_entropy(output, y)
    each = functional.cross_entropy(output, y, reduction="none")
    return (weights * each).sum() / weights.sum()


def one_hot(y: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """One-hot rows [n, classes] of labels [n]."""
    from torch.nn import functional

    return functional.one_hot(y, classes).to(dtype)


def class_means(embedding: Tensor, y: Tensor, classes: int) -> Tensor:
    """[classes, E] of an embedded set [n, E]; classes may differ in size."""
    belongs = one_hot(y, classes, embedding.dtype)
    return (belongs.T @ embedding) / belongs.sum(dim=0)[:, None]


def nearest_members(distances: Tensor, y: Tensor, classes: int) -> Tensor:
    """Minus the distance to the nearest member of each class: [n, classes] of distances [n, m]."""
    import torch
    from torch.nn import functional

    other = functional.one_hot(y, classes) == 0
    return -distances[:, :, None].masked_fill(other[None], torch.inf).amin(dim=1)


def softmax(output: Tensor) -> NDArray[np.float32]:
    """Probabilities [n, classes] of logits."""
    found: NDArray[np.float32] = output.softmax(dim=-1).numpy()
    return found


def label_texts(rows: Sequence[Sequence[Any]], names: Sequence[str], where: Callable[[int], str]) -> list[str]:
    """Labels as text, from rows of one cell each.

    Raises:
        InputError: If a cell holds no label, or two labels cannot be told apart; the message names them.
    """
    from metaray.tasks.labels import plain_label, plain_labels

    for i, (cell,) in enumerate(rows):
        if isinstance(cell, str):
            text(cell, names[0], where(i))  # a blank is no label
    found = [plain_label(cell, f"{where(i)}: the {names[0]}") for i, (cell,) in enumerate(rows)]
    labels = [str(label) for label in plain_labels(found)]
    for i, label in enumerate(labels):
        try:
            label.encode()
        except UnicodeEncodeError:
            told = f"the {names[0]} {label!r} holds half of a surrogate pair, which is no text"
            raise InputError(f"{where(i)}: {told}") from None
    return labels


def label_cells(output: Tensor, classes: Sequence[Hashable]) -> dict[str, Any]:
    """The cells of `PREDICTIONS`, a column each."""
    shares, names = softmax(output), [str(one) for one in classes]
    each = [dict(zip(names, map(float, row), strict=True)) for row in shares]
    labels, highest = [names[place] for place in shares.argmax(axis=1)], shares.max(axis=1).astype("float64")
    columns = (labels, highest, [json.dumps(row) for row in each], each)
    return {column.name: cells for column, cells in zip(PREDICTIONS, columns, strict=True)}


class ClassKind(TaskKind):
    """Base class of task kinds whose targets are classes: outputs are logits, predictions are labels."""

    has_classes: ClassVar[bool] = True
    free_scale: ClassVar[bool] = True
    target_word: ClassVar[str] = "label"

    def outputs(self, ways: int) -> int:
        """The number of labels: one logit for each."""
        return self.labels(ways)

    def loss(self, output: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean cross-entropy of logits [n, labels] for labels [n]."""
        return cross_entropy(output, y, weights)

    def aims(self, y: Tensor, ways: int, dtype: torch.dtype) -> Tensor:
        """One-hot labels [n, outputs]."""
        return one_hot(y, self.labels(ways), dtype)

    def seen(self, y: Tensor, dtype: torch.dtype) -> Tensor:
        """No numbers, [n, 0]: an encoder of examples does not see labels."""
        return y.new_empty((len(y), 0), dtype=dtype)

    def pooled(self, encoded: Tensor, y: Tensor, ways: int) -> Tensor:
        """The means of the classes, concatenated."""
        return class_means(encoded, y, self.labels(ways)).flatten()

    def pools(self, y: Tensor, ways: int, dtype: torch.dtype) -> Tensor | None:
        """Membership of each example in each class, as 0 and 1."""
        return one_hot(y, self.labels(ways), dtype)

    def nearest(self, distances: Tensor, y: Tensor, ways: int) -> Tensor:
        """Minus the distance to the nearest known example of each class."""
        return nearest_members(distances, y, self.labels(ways))

    def distribution_size(self, ways: int) -> int:
        """The number of logits."""
        return self.labels(ways)

    def expected(self, distribution: Tensor) -> Tensor:
        """The logits themselves."""
        return distribution

    def surprise(self, distribution: Tensor, y: Tensor) -> Tensor:
        """The mean cross-entropy of the labels under the logits."""
        return cross_entropy(distribution, y, None)

    def probabilities(self, output: Tensor) -> NDArray[np.float32]:
        """The softmax of the logits."""
        return softmax(output)

    def values(self, output: Tensor, flat: bool) -> NDArray[np.float32]:
        """Not available: predictions are labels."""
        raise InputError("this learner tells classes apart: use predict or predict_proba, not predict_values")

    def predictions(
        self, output: Tensor, classes: Sequence[Hashable], flat: bool
    ) -> list[Hashable] | NDArray[np.float32]:
        """The most probable label of each example."""
        return [classes[i] for i in softmax(output).argmax(axis=1)]

    def found_classes(self, output: Tensor) -> list[int] | None:
        """The place of the highest logit."""
        found: list[int] = output.argmax(dim=-1).tolist()
        return found

    def target_columns(self) -> tuple[Column, ...]:
        """One column, `label`."""
        return TARGETS

    def prediction_columns(self) -> tuple[Column, ...]:
        """label, probability, probabilities, distribution."""
        return PREDICTIONS

    def from_cells(self, rows: Sequence[Sequence[Any]], names: Sequence[str], where: Callable[[int], str]) -> Any:
        """Labels as text, from the cells of the label column."""
        return label_texts(rows, names, where)

    def prediction_cells(self, output: Tensor, classes: Sequence[Hashable]) -> dict[str, Any]:
        """The most probable label, and the probabilities of all."""
        return label_cells(output, classes)
