"""A multi-layer perceptron for rows of tables."""

from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from metaray.data.preprocessing import Preprocessing, TablePreprocessing
from metaray.data.preprocessing.table import CATEGORIES, MISSING, NUMBERS
from metaray.data.ragged import FeatureShape, fixed_shape
from metaray.episodes.inputs import Inputs
from metaray.models.batch_norm import EpisodicBatchNorm
from metaray.models.model import Model, Network


class TableMLP(Model):
    """Linear layers with ReLU over standardised numbers, vectors, flags of what is missing, embeddings of categories.

    Each column of categories has an embedding of its own (Guo and Berkhahn, "Entity embeddings of categorical
    variables", 2016, arXiv:1604.06737), whose first row stands for what is missing or was not seen in meta-train.
    Without categories and missing cells it is a plain `MLP`.

    Attributes:
        hidden: sizes of the hidden layers; none gives a linear model.
        embedding: numbers that stand for a category, at most as many as the column has categories.
        batch_norm: normalise before each ReLU.
    """

    kind: ClassVar[str] = "table_mlp"
    hidden: tuple[Annotated[int, Field(gt=0)], ...] = (64, 64)
    embedding: int = Field(default=8, gt=0)
    batch_norm: bool = False

    def build(self, feature_shape: FeatureShape, outputs: int | None) -> nn.Module:
        """See `Model.build`; of inputs that are numbers alone."""
        (size,) = fixed_shape(feature_shape, self.kind)
        return self._network(size, (), outputs)

    def build_for(
        self, feature_shape: FeatureShape, outputs: int | None, preprocessing: Preprocessing | None
    ) -> nn.Module:
        """See `Model.build_for`."""
        if not isinstance(preprocessing, TablePreprocessing):
            return self.build(feature_shape, outputs)
        sizes = tuple(column.size for column in preprocessing.categories)
        numbers = len(preprocessing.numbers) + len(preprocessing.flagged) + preprocessing.vector_size
        return self._network(numbers, sizes, outputs)

    def _network(self, numbers: int, categories: tuple[int, ...], outputs: int | None) -> nn.Module:
        body = _Body(numbers, categories, self)
        return Network(body, body.size, outputs)


class _Body(nn.Module):
    """Everything up to the head."""

    def __init__(self, numbers: int, categories: tuple[int, ...], model: TableMLP) -> None:
        super().__init__()
        widths = [min(model.embedding, size) for size in categories]
        self.embeddings = nn.ModuleList(
            nn.Embedding(size, width) for size, width in zip(categories, widths, strict=True)
        )
        sizes = (numbers + sum(widths), *model.hidden)
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
            parts = [x[name] for name in (NUMBERS, MISSING) if name in x]
            parts += [embedding(x[CATEGORIES][..., place]) for place, embedding in enumerate(self.embeddings)]
            x = torch.cat(parts, dim=-1)
        found: Tensor = self.layers(x)
        return found
