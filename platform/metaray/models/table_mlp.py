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
    """Linear layers with ReLU over standardised numbers, flags of what is missing, labels that are there, vectors,
    what meta-train says of an item, and embeddings of categories.

    Each column of categories has an embedding of its own (Guo and Berkhahn, "Entity embeddings of categorical
    variables", 2016, arXiv:1604.06737), whose first row stands for what is missing or was not seen in meta-train.
    Without categories and missing cells it is a plain `MLP`.

    Attributes:
        hidden: Sizes of the hidden layers; none gives a linear model.
        embedding: Numbers that stand for a category, at most as many as the column has categories.
        batch_norm: Normalise before each ReLU.
        item_embedding: Numbers that stand for an item besides; 0 for none. They begin at 0, and stay there for an item
            that meta-train has not.
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
