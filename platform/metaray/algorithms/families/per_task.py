"""What baselines share that learn each task from its support set alone: they are judged, never trained."""

from typing import ClassVar

from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.inputs import Inputs
from metaray.models.comparison import Comparing


class PerTask(Algorithm):
    """Has no meta-parameters; what it compares are the vectors that the preprocessing makes of inputs."""

    needs_classes: ClassVar[bool] = False

    def outputs(self, task_shape: TaskShape) -> int | None:
        """No output layer."""
        return None

    def heeds_batch(self, network: nn.Module) -> bool:
        """No: no other network than a `Comparing` is asked."""
        return False

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """None at all."""
        return {}


def vectors(x: Inputs, context: Context) -> Tensor:
    """[n, numbers] of inputs [n, ...]: what a `Comparing` makes of them, else the inputs flattened."""
    found: Tensor = context.network(x) if isinstance(context.network, Comparing) else x.flatten(1)
    return found
