"""Nearest neighbour on the inputs: the baseline that needs no training."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples


class NearestNeighbor(Algorithm):
    """One nearest neighbour in Euclidean distance between inputs.

    The "pixels" row of Vinyals et al. (NeurIPS 2016, table 1) has cosine similarity instead. Where targets are
    values it gives that of the nearest support example. It has no meta-parameters: it is evaluated, never trained.
    """

    kind: ClassVar[str] = "nearest_neighbor"
    needs_classes: ClassVar[bool] = False

    def outputs(self, task_shape: TaskShape) -> int | None:
        """No output layer."""
        return None

    def heeds_batch(self, network: nn.Module) -> bool:
        """No: the network is not asked."""
        return False

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """None at all."""
        return {}

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """The support set, flattened."""
        return {"x": support.x.flatten(1).to(context.loss_dtype), "y": support.y}

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """For each class, minus the distance to its nearest support example; or that example's target."""
        distances = torch.cdist(x.flatten(1).to(context.loss_dtype), adapted["x"])
        return context.task.nearest(distances, adapted["y"], context.ways)
