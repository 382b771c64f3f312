"""A multi-layer perceptron for rows of tables."""

from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from metaray.data.preprocessing import Preprocessing, TablePreprocessing
from metaray.data.preprocessing.table import CATEGORIES, IN_ORDER, ITEM_CODE
from metaray.data.ragged import FeatureShape, fixed_shape
from metaray.episodes.inputs import Inputs
from metaray.models.batch_norm import EpisodicBatchNorm
from metaray.models.model import Model, Network


class TableMLP(Model):
    """A multi-layer perceptron for the columns of a table, with embeddings of categories.

    Its inputs are standardised numbers, flags of missing cells, label sets, vectors, and what meta-train knows of an
    item.

    Each column of categories has its own embedding (Guo and Berkhahn, "Entity embeddings of categorical variables",
    2016, arXiv:1604.06737), whose first row stands for cells that are missing or were not seen in meta-train. Without
    categories and missing cells the network is a plain `MLP`.

    Attributes:
        hidden: Sizes of the hidden layers; none gives a linear model.
        embedding: Size of the embedding of a category; at most the number of the column's categories.
        batch_norm: Whether to apply batch norm before each ReLU.
        item_embedding: Size of the learned embedding of an item; 0 for none. Embeddings start at 0 and stay there for
            items that are not in meta-train.
    """

    kind: ClassVar[str] = "table_mlp"
    left_out_of_json: ClassVar[tuple[str, ...]] = ("item_embedding",)
    hidden: tuple[Annotated[int, Field(gt=0)], ...] = (64, 64)
    embedding: int = Field(default=8, gt=0)
    batch_norm: bool = False
    item_embedding: int = Field(default=0, ge=0)

    def build(self, feature_shape: FeatureShape, outputs: int | None) -> nn.Module:
        """See `Model.build`; of inputs that are numbers alone."""
        (size,) = fixed_shape(feature_shape, self.kind)
        return self._network(size, (), 0, outputs)

    def build_for(
        self, feature_shape: FeatureShape, outputs: int | None, preprocessing: Preprocessing | None
    ) -> nn.Module:
        """See `Model.build_for`."""
        if not isinstance(preprocessing, TablePreprocessing):
            return self.build(feature_shape, outputs)
        sizes = tuple(column.size for column in preprocessing.categories)
        (size,), item = preprocessing.feature_shape, preprocessing.item
        numbers = size - len(sizes) - (item is not None)  # less those that are codes
        return self._network(numbers, sizes, 0 if item is None else item.size, outputs)

    def _network(self, numbers: int, categories: tuple[int, ...], items: int, outputs: int | None) -> nn.Module:
        body = _Body(numbers, categories, items if self.item_embedding else 0, self)
        return Network(body, body.size, outputs)


class _Body(nn.Module):
    """Everything up to the head."""

    def __init__(self, numbers: int, categories: tuple[int, ...], items: int, model: TableMLP) -> None:
        super().__init__()
        widths = [min(model.embedding, size) for size in categories]
        self.embeddings = nn.ModuleList(
            nn.Embedding(size, width) for size, width in zip(categories, widths, strict=True)
        )
        self.items = nn.Embedding(items, model.item_embedding, padding_idx=0) if items else None
        if self.items is not None:
            nn.init.zeros_(self.items.weight)
        sizes = (numbers + sum(widths) + (model.item_embedding if items else 0), *model.hidden)
        layers: list[nn.Module] = []
        for inputs, size in pairwise(sizes):
            layers.append(nn.Linear(inputs, size))
            if model.batch_norm:
                layers.append(EpisodicBatchNorm(size))
            layers.append(nn.ReLU())
        self.layers, self.size = nn.Sequential(*layers), sizes[-1]

    def forward(self, x: Inputs) -> Tensor:
        """[n, numbers], or the dict of tensors, to [n, size]."""
        if isinstance(x, dict):
            parts = [x[name] for name in IN_ORDER if name in x and name != CATEGORIES]
            parts += [embedding(x[CATEGORIES][..., place]) for place, embedding in enumerate(self.embeddings)]
            parts += [] if self.items is None else [self.items(x[ITEM_CODE])]
            x = torch.cat(parts, dim=-1)
        found: Tensor = self.layers(x)
        return found
