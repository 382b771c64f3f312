"""What baselines share that learn each task from its support set alone: they are judged, never trained."""

from typing import ClassVar

from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.inputs import Inputs
from metaray.models.comparison import Comparing


class PerTask(Algorithm):
    """Base class of baselines without meta-parameters, which compare the vectors that preprocessing makes of inputs."""

    needs_classes: ClassVar[bool] = False

    def outputs(self, task_shape: TaskShape) -> int | None:
        """None: there is no output layer."""
        return None

    def heeds_batch(self, network: nn.Module) -> bool:
        """Always false: no network with batch norm is used."""
        return False

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """An empty dict: there are no meta-parameters."""
        return {}


def vectors(x: Inputs, context: Context) -> Tensor:
    """Vectors [n, numbers] of inputs [n, ...]: computed by a `Comparing`, or the inputs flattened."""
    found: Tensor = context.network(x) if isinstance(context.network, Comparing) else x.flatten(1)
    return found
