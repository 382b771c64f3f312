"""What there is to learn, known before any task is seen."""

from typing import NamedTuple


class TaskShape(NamedTuple):
    """The shape of all tasks of an experiment.

    Attributes:
        feature_shape: of one input.
        ways: classes of a task, N; 1 in regression.
        target_size: values of a regression target; None where targets are classes.
        classes: that meta-train has in all, 0 in regression or where it does not matter.
    """

    feature_shape: tuple[int, ...] = ()
    ways: int = 1
    target_size: int | None = None
    classes: int = 0

    @property
    def outputs(self) -> int:
        """How many numbers a prediction has: one a class, or those of a target."""
        return self.ways if self.target_size is None else self.target_size
