"""A multi-layer perceptron."""

import math
from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field
from torch import nn

from metaray.data.preprocessing import Preprocessing, TablePreprocessing
from metaray.data.ragged import FeatureShape, fixed_shape
from metaray.errors import InputError
from metaray.models.batch_norm import EpisodicBatchNorm
from metaray.models.model import Model, Network


class MLP(Model):
    """A multi-layer perceptron with ReLU over flattened inputs (Finn et al., ICML 2017, sections 5.1 and 5.2).

    Attributes:
        hidden: Sizes of the hidden layers; none gives a linear model.
        batch_norm: Whether to apply batch norm before each ReLU, as the paper does on Omniglot (and not on sinusoids).
    """

    kind: ClassVar[str] = "mlp"
    hidden: tuple[Annotated[int, Field(gt=0)], ...] = (256, 128, 64, 64)
    batch_norm: bool = True

    def build(self, feature_shape: FeatureShape, outputs: int | None) -> nn.Module:
        """See `Model.build`."""
        sizes = (math.prod(fixed_shape(feature_shape, self.kind)), *self.hidden)
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, size in pairwise(sizes):
            layers.append(nn.Linear(inputs, size))
            if self.batch_norm:
                layers.append(EpisodicBatchNorm(size))
            layers.append(nn.ReLU())
        return Network(nn.Sequential(*layers), sizes[-1], outputs)

    def build_for(
        self, feature_shape: FeatureShape, outputs: int | None, preprocessing: Preprocessing | None
    ) -> nn.Module:
        """See `Model.build_for`."""
        if isinstance(preprocessing, TablePreprocessing) and not preprocessing.is_plain:
            raise InputError(
                f"model {self.kind!r} takes one tensor of numbers, but this table also has categories or missing "
                "cells: take table_mlp"
            )
        return self.build(feature_shape, outputs)
