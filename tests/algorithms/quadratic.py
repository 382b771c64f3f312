"""L(w) = w^2 as a regression task: the network is w * x, every input is 1 and every target 0."""

import torch
from torch import Tensor, nn

from metaray.algorithms import Algorithm
from metaray.algorithms.algorithm import MetaGradient
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.tasks import Regression

PROBLEM = TaskShape((1,), 1, Regression())


class Weight(nn.Module):
    """w * x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.w * x


def at(algorithm: Algorithm, w: float) -> tuple[Tensors, Context]:
    """The meta-parameters with the weight at w, and a training context."""
    network = Weight()
    meta = {name: tensor.double() for name, tensor in algorithm.init(network, PROBLEM).items()}
    meta["w"] = torch.tensor(w, dtype=torch.float64)
    context = Context(network=network, ways=1, training=True, task=Regression())
    return {name: tensor.requires_grad_() for name, tensor in meta.items()}, context


def episode(count: int = 2) -> TensorEpisode:
    """Of `count` equal examples a side."""
    side = Examples(torch.ones(count, 1, dtype=torch.float64), torch.zeros(count, 1, dtype=torch.float64))
    return TensorEpisode(side, side, torch.tensor(7), torch.zeros(1, dtype=torch.int64))


def of_square(algorithm: Algorithm, w: float) -> MetaGradient:
    """The meta-gradient of one such task."""
    meta, context = at(algorithm, w)
    return algorithm.meta_gradient(meta, episode(), context)
