"""Tasks of telling positives from negatives."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from metaray.errors import InputError
from metaray.tasks.classes import ClassKind
from metaray.tasks.ranking import area_under_roc, average_precision, balanced_accuracy
from metaray.tasks.score import SCORES, Score
from metaray.tasks.task_kind import Targets

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

EPSILON = 1e-6
CLASSES = (0, 1)
"""Negative and positive, the same in every task."""
SPELLINGS: dict[Hashable, int] = {
    **{"0": 0, "1": 1, "false": 0, "true": 1, "negative": 0, "positive": 1},
    **{"0.0": 0, "1.0": 1},  # a column with empty cells, as those of queries are, becomes one of floats
}


class Binary(ClassKind):
    """Tasks whose examples are negative (0) or positive (1), with the same meaning in all tasks.

    A task has one way. With K shots, the support set of a task, such as an assay, holds K negatives and K positives.

    Predictions are two logits, so that algorithms which group examples by class work as with any other classes; the
    loss is cross-entropy. The score is the area under the ROC curve of the positive's logit minus the negative's: the
    share of pairs of a positive and a negative in which the positive has the larger difference, with ties counted by
    half. Average precision, which unlike it depends on the share of positives, and balanced accuracy of the more
    probable label are reported beside it.
    """

    kind: ClassVar[str] = "binary"
    score: ClassVar[Score] = SCORES["auroc"]
    baselines: ClassVar[tuple[str, ...]] = ("logistic",)
    item_baselines: ClassVar[tuple[str, ...]] = ("item_mean",)
    verb: ClassVar[str] = "tells positives from negatives"

    def labels(self, ways: int) -> int:
        """Always 2."""
        return len(CLASSES)

    def check_ways(self, fewest: int, most: int) -> None:
        """Check that episodes have exactly one way."""
        if most != 1:
            raise ValueError(f"these have 1 way, with positives and negatives (got {most})")

    def judged(self, output: Tensor, y: Tensor) -> Tensor:
        """The area under the ROC curve; NaN if all labels are the same."""
        return area_under_roc(output[:, 1] - output[:, 0], y)

    @property
    def further(self) -> tuple[Score, ...]:
        """Average precision and balanced accuracy, reported beside the score."""
        return SCORES["average_precision"], SCORES["balanced_accuracy"]

    def judged_further(self, output: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """Average precision and balanced accuracy, by the positive's logit minus the negative's.

        A difference above 0 counts as a prediction of positive.
        """
        margin = output[:, 1] - output[:, 0]
        return average_precision(margin, y), balanced_accuracy(margin > 0, y).to(margin.dtype)

    def guesses(self, means: Tensor) -> Tensor:
        """Logits whose difference expresses each mean as the share of positives; shares of 0 and 1 stay finite."""
        import torch

        return torch.stack([torch.zeros_like(means), means.logit(eps=EPSILON)], dim=1)

    def chance(self, guessing: float) -> float | None:
        """One half, whatever the share of positives."""
        return 0.5

    def check_task(self, support_y: NDArray[Any], query_y: NDArray[Any]) -> None:
        """Check that both support and query hold positives and negatives.

        With one class alone there is nothing to learn, and no area under the ROC curve.
        """
        for side, y in (("support", support_y), ("query", query_y)):
            if y.ndim != 1 or y.dtype.kind != "i":
                raise InputError(
                    f"the {side} labels of a binary task are {y.dtype} of shape {list(y.shape)}; it needs integers [n]"
                )
            found = sorted(set(y.tolist()))
            if found != list(CLASSES):
                raise InputError(
                    f"the {side} of a binary task holds the labels {found}; it needs negatives (0) and positives (1)"
                )

    def read(self, y: Any) -> Targets:
        """Labels as numbers or text: 0 or False for negatives, 1 or True for positives.

        Predictions are returned in the same form.
        """
        import torch

        from metaray.tasks.labels import plain_labels

        labels = plain_labels(y)
        places = [_place(label, f"label {i}") for i, label in enumerate(labels)]
        if set(places) != set(CLASSES):
            only = "positives" if 1 in places else "negatives"
            raise InputError(f"the support set holds {only} only; a binary task needs examples of both")
        return Targets(torch.tensor(places), tuple(labels[places.index(one)] for one in CLASSES))

    def read_more(self, y: Any, classes: Sequence[Hashable]) -> Targets:
        """Labels of further examples, which may all be negative or all positive."""
        import torch

        from metaray.tasks.labels import plain_labels, require_labels

        labels = require_labels(plain_labels(y))
        return Targets(torch.tensor([_place(label, f"label {i}") for i, label in enumerate(labels)]), tuple(classes))

    def check_classes(self, classes: Sequence[Hashable], ways: int | None, flat: bool) -> None:
        """Check that the labels of a saved task are a negative and a positive."""
        try:
            places = tuple(_place(label, "a label") for label in classes)
        except InputError:
            places = ()
        if flat or places != CLASSES:
            raise ValueError(f"its labels {list(classes)} do not fit its learner, whose labels are 0 and 1")

    def example_targets(self, ways: int | None, shots: int) -> list[list[Any]]:
        """The label cells of a small made-up support set: one negative and one positive."""
        return [["0"], ["1"]]

    def told(self, whole: str, shots: str) -> str:
        """The task in words, as in "10-shot binary"."""
        return f"{shots} binary"


def _place(label: Hashable, where: str) -> int:
    """0 or 1."""
    if isinstance(label, str):
        found = SPELLINGS.get(label.strip().lower())
    else:
        found = int(label) if isinstance(label, int | float) and label in CLASSES else None
    if found is None:
        raise InputError(f"{where} is {label!r}; give 0 for a negative and 1 for a positive")
    return found
