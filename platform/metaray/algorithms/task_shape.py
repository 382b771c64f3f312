"""What there is to learn, known before any task is seen."""

from typing import NamedTuple

import torch

from metaray.data.preprocessing import Preprocessing
from metaray.data.ragged import FeatureShape, fixed_shape
from metaray.episodes.inputs import Inputs, mapped
from metaray.tasks import Classification, TaskKind


class TaskShape(NamedTuple):
    """The shape that all tasks of an experiment share: inputs, ways, and kind of task.

    Attributes:
        feature_shape: Shape of one input; its first axis is None if inputs are ragged.
        ways: Number of ways N of an episode; 1 if tasks have no classes of their own, as in regression.
        task: Kind of the tasks.
        classes: Number of classes in the meta-train split; 0 if there are none, or if the number does not matter.
        preprocessing: Preprocessing of the inputs; None if they are plain numbers.
    """

    feature_shape: FeatureShape = ()
    ways: int = 1
    task: TaskKind = Classification()
    classes: int = 0
    preprocessing: Preprocessing | None = None

    @property
    def outputs(self) -> int:
        """Number of outputs of a prediction: one for each class, or the size of a target."""
        return self.task.outputs(self.ways)

    def probe(self, count: int) -> Inputs:
        """Random valid inputs for trying a network: `count` of them, normalised, on the CPU."""
        if self.preprocessing is None:
            return torch.zeros(count, *fixed_shape(self.feature_shape, "a network without a preprocessing"))
        return probe_of(self.preprocessing, count)


def probe_of(preprocessing: Preprocessing, count: int, seed: int = 0) -> Inputs:
    """Random valid inputs for trying a network: `count` of them, normalised, on the CPU."""
    return preprocessing.normalize(mapped(torch.from_numpy, preprocessing.probe(count, seed)))
