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
    """Tasks whose examples belong to one of N classes; labels 0 .. N-1 stand for other classes in each task.

    Predictions are N logits; the loss is cross-entropy, the score is accuracy.
    """

    kind: ClassVar[str] = "classification"
    score: ClassVar[Score] = SCORES["accuracy"]
    labels_vary: ClassVar[bool] = True
    verb: ClassVar[str] = "tells classes apart"

    def labels(self, ways: int) -> int:
        """The number of ways N."""
        return ways

    def check_ways(self, fewest: int, most: int) -> None:
        """Check that a task has at least two ways."""
        if fewest < 2:
            raise ValueError(f"these have at least 2 ways (got {fewest})")

    def judged(self, output: Tensor, y: Tensor) -> Tensor:
        """The accuracy of the most probable class."""
        return (output.argmax(dim=-1) == y).to(output.dtype).mean()

    def chance(self, guessing: float) -> float | None:
        """The accuracy of guessing a class at random."""
        return guessing

    def read(self, y: Any) -> Targets:
        """Labels of any hashable kind; classes are kept in the order of their first appearance."""
        from metaray.tasks.labels import classes_of, plain_labels

        classes, places = classes_of(plain_labels(y))
        return Targets(places, classes)

    def read_more(self, y: Any, classes: Sequence[Hashable]) -> Targets:
        """Labels of further examples: of the task's own classes, or of new ones, appended in order of appearance."""
        from metaray.tasks.labels import further_labels, plain_labels

        grown, places = further_labels(plain_labels(y), classes)
        return Targets(places, grown)

    def check_classes(self, classes: Sequence[Hashable], ways: int | None, flat: bool) -> None:
        """Check that a saved task has at least two different labels, and as many as a learner with fixed ways takes."""
        if len(set(classes)) < len(classes) or len(classes) < 2:
            raise ValueError(f"{len(classes)} labels do not fit its learner")
        if flat or ways not in (None, len(classes)):
            raise ValueError("its labels or targets do not fit its learner")

    def example_targets(self, ways: int | None, shots: int) -> list[list[Any]]:
        """The label cells of a small made-up support set: one row for each class."""
        return [[f"class {way}"] for way in range(ways or 2)]

    def told(self, whole: str, shots: str) -> str:
        """The task in words, as in "5-way (fixed) 1-shot"."""
        return whole
