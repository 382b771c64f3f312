"""Nearest neighbour on the inputs: the baseline that needs no training."""

from typing import ClassVar

import torch
from torch import Tensor

from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.per_task import PerTask, vectors
from metaray.algorithms.growth import ROWS
from metaray.episodes.inputs import Inputs
from metaray.episodes.tensors import Examples


class NearestNeighbor(PerTask):
    """One nearest neighbour in Euclidean distance between inputs, or between what a `Comparing` makes of them.

    The "pixels" row of Vinyals et al. (NeurIPS 2016, table 1) has cosine similarity instead. In regression the
    prediction is the target of the nearest support example. There are no meta-parameters: this baseline is evaluated,
    never trained.
    """

    kind: ClassVar[str] = "nearest_neighbor"

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """The inputs of the support set, flattened."""
        return {"x": _vectors(support.x, context), "y": support.y}

    def summary(self, meta: Tensors, support: Examples, context: Context, statistics: Tensors) -> Tensors | None:
        """The inputs of the support set, flattened."""
        return {ROWS + name: rows for name, rows in self.adapt(meta, support, context).items()}

    def adapt_to(self, meta: Tensors, summary: Tensors, context: Context) -> Tensors:
        """The flattened inputs that the summary consists of."""
        return {name.removeprefix(ROWS): rows for name, rows in summary.items()}

    def predict(self, meta: Tensors, adapted: Tensors, x: Inputs, context: Context) -> Tensor:
        """Predict minus the distance to the nearest support example of each class, or its target in regression."""
        distances = torch.cdist(_vectors(x, context), adapted["x"])
        return context.task.nearest(distances, adapted["y"], context.ways)


def _vectors(x: Inputs, context: Context) -> Tensor:
    """Vectors of the type that losses are computed in."""
    return vectors(x, context).to(context.loss_dtype)
