"""What predicts a task from the items of its rows, by what meta-train says of these: baselines for recommendation.

All means are shrunk as `ItemColumn` says, and of meta-train alone. An offset is what a task's targets have in common
beside their items' means: a user who gives higher marks than others.
"""

from typing import ClassVar

import torch
from torch import Tensor

from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.per_task import PerTask
from metaray.data.preprocessing import ItemColumn, TablePreprocessing
from metaray.data.preprocessing.table import ITEM
from metaray.episodes.inputs import Inputs
from metaray.episodes.tensors import Examples
from metaray.errors import InputError
from metaray.models.comparison import Comparison


class GlobalMean(PerTask):
    """The mean of all targets of meta-train, whatever the input and the support."""

    kind: ClassVar[str] = "global_mean"

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """An empty dict: nothing is learned from the support set."""
        return {}

    def predict(self, meta: Tensors, adapted: Tensors, x: Inputs, context: Context) -> Tensor:
        """Predict the mean target of meta-train for each input."""
        item, statistics = items(x, context)
        return context.task.guesses(torch.full_like(statistics[:, 0], item.global_mean)).to(context.loss_dtype)


class ItemMean(PerTask):
    """The mean of the row's item, whatever the support."""

    kind: ClassVar[str] = "item_mean"

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """An empty dict: nothing is learned from the support set."""
        return {}

    def predict(self, meta: Tensors, adapted: Tensors, x: Inputs, context: Context) -> Tensor:
        """The mean of each input's item."""
        item, statistics = items(x, context)
        return context.task.guesses(item.means_of(statistics)).to(context.loss_dtype)


class ItemMeanAndOffset(ItemMean):
    """The mean of the row's item, plus the mean difference of the support targets to the means of their items."""

    kind: ClassVar[str] = "item_mean_and_offset"

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """The mean difference of the support targets to the means of their items."""
        guesses = super().predict(meta, {}, support.x, context)
        apart = context.task.aims(support.y, context.ways, context.loss_dtype) - guesses
        return {"offset": apart.sum(dim=0) / (len(apart) + self.shrinkage(support.x, context))}

    def predict(self, meta: Tensors, adapted: Tensors, x: Inputs, context: Context) -> Tensor:
        """Predict the means of the items plus that difference."""
        return super().predict(meta, {}, x, context) + adapted["offset"]

    def shrinkage(self, x: Inputs, context: Context) -> float:
        """Differences of 0 that count besides: none."""
        return 0.0


class ItemMeanAndShrunkOffset(ItemMeanAndOffset):
    """The guess of `ItemMeanAndOffset`, with an offset shrunk towards 0 as far as groups of meta-train say."""

    kind: ClassVar[str] = "item_mean_and_shrunk_offset"

    def shrinkage(self, x: Inputs, context: Context) -> float:
        """`ItemColumn.offset_shrinkage`."""
        return items(x, context)[0].offset_shrinkage


def items(x: Inputs, context: Context) -> tuple[ItemColumn, Tensor]:
    """The column of items, and the inputs' values for it [n, 2], in float64.

    Raises:
        InputError: If the inputs have no column of items.
    """
    network = context.network
    table = network.preprocessing if isinstance(network, Comparison) else None
    item = table.item if isinstance(table, TablePreprocessing) else None
    if item is None or not isinstance(x, dict):
        raise InputError("item means are of tables that have a column of items (metaray data import table --item)")
    return item, x[ITEM].to(torch.float64)
