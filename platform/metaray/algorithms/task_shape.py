"""What there is to learn, known before any task is seen."""

from typing import NamedTuple

import torch

from metaray.data.preprocessing import Preprocessing
from metaray.data.ragged import FeatureShape, fixed_shape
from metaray.episodes.inputs import Inputs, mapped
from metaray.tasks import Classification, TaskKind


class TaskShape(NamedTuple):
    """The shape of all tasks of an experiment.

    Attributes:
        feature_shape: Shape of one input; the first axis is None where they are ragged.
        ways: Number of ways of an episode, N; 1 where it has no classes of its own.
        task: The kind of the tasks.
        classes: Number of classes that meta-train has in all; 0 where there are none, or where it does not matter.
        preprocessing: Preprocessing of the inputs; None where they are plain numbers.
    """

    feature_shape: FeatureShape = ()
    ways: int = 1
    task: TaskKind = Classification()
    classes: int = 0
    preprocessing: Preprocessing | None = None

    @property
    def outputs(self) -> int:
        """How many numbers a prediction has: one a class, or those of a target."""
        return self.task.outputs(self.ways)

    def probe(self, count: int) -> Inputs:
        """Valid inputs to try a network with, as it takes them: normalised, on the CPU."""
        if self.preprocessing is None:
            return torch.zeros(count, *fixed_shape(self.feature_shape, "a network without a preprocessing"))
        return probe_of(self.preprocessing, count)


def probe_of(preprocessing: Preprocessing, count: int, seed: int = 0) -> Inputs:
    """Valid inputs to try a network with, as it takes them: normalised, on the CPU."""
    return preprocessing.normalize(mapped(torch.from_numpy, preprocessing.probe(count, seed)))
