"""Tasks of telling N classes apart, other ones in each task."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from metaray.tasks.classes import (
    PREDICTIONS,
    TARGETS,
    class_means,
    cross_entropy,
    label_cells,
    label_texts,
    most_probable,
    nearest_members,
    no_values,
    one_hot,
    softmax,
)
from metaray.tasks.column import Column
from metaray.tasks.score import SCORES, Score
from metaray.tasks.task_kind import Targets, TaskKind

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor


class Classification(TaskKind):
    """Each example belongs to one of N classes. Labels 0 .. N-1 stand for other classes in each task.

    Predictions are N logits; the loss is cross-entropy, the score the share that is predicted right.
    """

    kind: ClassVar[str] = "classification"
    score: ClassVar[Score] = SCORES["accuracy"]
    has_classes: ClassVar[bool] = True
    labels_vary: ClassVar[bool] = True
    free_scale: ClassVar[bool] = True
    verb: ClassVar[str] = "tells classes apart"
    target_word: ClassVar[str] = "label"

    def labels(self, ways: int) -> int:
        """N."""
        return ways

    def outputs(self, ways: int) -> int:
        """N."""
        return ways

    def check_ways(self, fewest: int, most: int) -> None:
        """At least two."""
        if fewest < 2:
            raise ValueError(f"these have at least 2 ways (got {fewest})")

    def loss(self, output: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean cross-entropy of logits [n, N] for labels [n]."""
        return cross_entropy(output, y, weights)

    def judged(self, output: Tensor, y: Tensor) -> Tensor:
        """Accuracy."""
        return (output.argmax(dim=-1) == y).to(output.dtype).mean()

    def chance(self, guessing: float) -> float | None:
        """That of guessing one of N."""
        return guessing

    def aims(self, y: Tensor, ways: int, dtype: torch.dtype) -> Tensor:
        """One-hot labels."""
        return one_hot(y, ways, dtype)

    def seen(self, y: Tensor, dtype: torch.dtype) -> Tensor:
        """Nothing."""
        return y.new_empty((len(y), 0), dtype=dtype)

    def pooled(self, encoded: Tensor, y: Tensor, ways: int) -> Tensor:
        """The N class means, one after the other."""
        return class_means(encoded, y, ways).flatten()

    def nearest(self, distances: Tensor, y: Tensor, ways: int) -> Tensor:
        """For each class, minus the distance to its nearest known example."""
        return nearest_members(distances, y, ways)

    def distribution_size(self, ways: int) -> int:
        """N logits."""
        return ways

    def expected(self, distribution: Tensor) -> Tensor:
        """The logits."""
        return distribution

    def surprise(self, distribution: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy."""
        return cross_entropy(distribution, y, None)

    def read(self, y: Any) -> Targets:
        """Labels of any kind; classes keep the order of their first appearance."""
        from metaray.tasks.labels import classes_of, plain_labels

        classes, places = classes_of(plain_labels(y))
        return Targets(places, classes)

    def probabilities(self, output: Tensor) -> NDArray[np.float32]:
        """The softmax of the logits."""
        return softmax(output)

    def values(self, output: Tensor, flat: bool) -> NDArray[np.float32]:
        """There are none."""
        raise no_values()

    def predictions(
        self, output: Tensor, classes: Sequence[Hashable], flat: bool
    ) -> list[Hashable] | NDArray[np.float32]:
        """The most probable label."""
        return most_probable(output, classes)

    def found_classes(self, output: Tensor) -> list[int] | None:
        """The place of the highest logit."""
        found: list[int] = output.argmax(dim=-1).tolist()
        return found

    def check_classes(self, classes: Sequence[Hashable], ways: int | None, flat: bool) -> None:
        """At least two different ones, and as many as the learner is fixed to."""
        if len(set(classes)) < len(classes) or len(classes) < 2:
            raise ValueError(f"{len(classes)} labels do not fit its learner")
        if flat or ways not in (None, len(classes)):
            raise ValueError("its labels or targets do not fit its learner")

    def target_columns(self) -> tuple[Column, ...]:
        """label."""
        return TARGETS

    def prediction_columns(self) -> tuple[Column, ...]:
        """label, probability, probabilities, distribution."""
        return PREDICTIONS

    def from_cells(self, rows: Sequence[Sequence[Any]], names: Sequence[str], where: Callable[[int], str]) -> Any:
        """Labels as text."""
        return label_texts(rows, names, where)

    def prediction_cells(self, output: Tensor, classes: Sequence[Hashable]) -> dict[str, Any]:
        """The most probable label, and the probabilities of all."""
        return label_cells(output, classes)

    def example_targets(self, ways: int | None, shots: int) -> list[list[Any]]:
        """One of each class."""
        return [[f"class {way}"] for way in range(ways or 2)]

    def told(self, whole: str, shots: str) -> str:
        """As in "5-way (fixed) 1-shot"."""
        return whole
