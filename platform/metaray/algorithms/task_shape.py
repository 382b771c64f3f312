"""What there is to learn, known before any task is seen."""

from typing import NamedTuple

from metaray.tasks import Classification, TaskKind


class TaskShape(NamedTuple):
    """The shape of all tasks of an experiment.

    Attributes:
        feature_shape: of one input.
        ways: of an episode, N; 1 where it has no classes of its own.
        task: the kind of the tasks.
        classes: that meta-train has in all; 0 where there are none, or where it does not matter.
    """

    feature_shape: tuple[int, ...] = ()
    ways: int = 1
    task: TaskKind = Classification()
    classes: int = 0

    @property
    def outputs(self) -> int:
        """How many numbers a prediction has: one a class, or those of a target."""
        return self.task.outputs(self.ways)
