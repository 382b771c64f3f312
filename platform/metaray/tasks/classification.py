"""Tasks of telling N classes apart, other ones in each task."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from metaray.tasks.classes import ClassKind
from metaray.tasks.score import SCORES, Score
from metaray.tasks.task_kind import Targets

if TYPE_CHECKING:
    from torch import Tensor


class Classification(ClassKind):
    """Each example belongs to one of N classes. Labels 0 .. N-1 stand for other classes in each task.

    Predictions are N logits; the loss is cross-entropy, the score the share that is predicted right.
    """

    kind: ClassVar[str] = "classification"
    score: ClassVar[Score] = SCORES["accuracy"]
    labels_vary: ClassVar[bool] = True
    verb: ClassVar[str] = "tells classes apart"

    def labels(self, ways: int) -> int:
        """N."""
        return ways

    def check_ways(self, fewest: int, most: int) -> None:
        """Check that a task has at least two ways."""
        if fewest < 2:
            raise ValueError(f"these have at least 2 ways (got {fewest})")

    def judged(self, output: Tensor, y: Tensor) -> Tensor:
        """Accuracy."""
        return (output.argmax(dim=-1) == y).to(output.dtype).mean()

    def chance(self, guessing: float) -> float | None:
        """The accuracy of guessing a class."""
        return guessing

    def read(self, y: Any) -> Targets:
        """Labels of any kind; classes keep the order of their first appearance."""
        from metaray.tasks.labels import classes_of, plain_labels

        classes, places = classes_of(plain_labels(y))
        return Targets(places, classes)

    def read_more(self, y: Any, classes: Sequence[Hashable]) -> Targets:
        """Labels of the task's own classes, or of new ones, which come after these as they appear."""
        from metaray.tasks.labels import further_labels, plain_labels

        grown, places = further_labels(plain_labels(y), classes)
        return Targets(places, grown)

    def check_classes(self, classes: Sequence[Hashable], ways: int | None, flat: bool) -> None:
        """Check for two different labels at least, and for as many as the learner is fixed to."""
        if len(set(classes)) < len(classes) or len(classes) < 2:
            raise ValueError(f"{len(classes)} labels do not fit its learner")
        if flat or ways not in (None, len(classes)):
            raise ValueError("its labels or targets do not fit its learner")

    def example_targets(self, ways: int | None, shots: int) -> list[list[Any]]:
        """One of each class."""
        return [[f"class {way}"] for way in range(ways or 2)]

    def told(self, whole: str, shots: str) -> str:
        """The task in words, as in "5-way (fixed) 1-shot"."""
        return whole
