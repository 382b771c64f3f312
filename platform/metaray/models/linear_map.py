"""A linear map of vectors that begins as the identity."""

import math
from math import sqrt
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from metaray.data.ragged import FeatureShape, fixed_shape
from metaray.errors import InputError
from metaray.models.encoders.pooling import unit
from metaray.models.model import Model, initialize


class LinearMap(Model):
    """A linear map of vectors that are good already, such as an encoder's; it starts as the identity.

        y = x + M x,    M = B A of a rank, or any matrix

    where A is random, with variance 1 / size, and B, or all of M, zero, as in `LoRA`. With class means it is a learned
    Mahalanobis distance. Parameters are named `body.*` and, of the linear layer behind it, `head.*`.

    Attributes:
        rank: Rank of M; None for a full matrix.
        normalized: Whether to scale y to length 1, as encoders do.
    """

    kind: ClassVar[str] = "linear_map"

    rank: int | None = Field(default=None, gt=0)
    normalized: bool = True

    def build(self, feature_shape: FeatureShape, outputs: int | None) -> nn.Module:
        """See `Model.build`."""
        size = math.prod(fixed_shape(feature_shape, self.kind))
        if self.rank is not None and self.rank >= size:
            raise InputError(f"linear_map: rank {self.rank} is no low one for vectors of {size} numbers")
        return _Mapped(_Map(size, self.rank, self.normalized), size, outputs)


class _Map(nn.Module):
    """[n, ...] to [n, size]."""

    def __init__(self, size: int, rank: int | None, normalized: bool) -> None:
        super().__init__()
        self.normalized = normalized
        self.down = None if rank is None else nn.Parameter(torch.randn(rank, size) / sqrt(size))
        self.up = nn.Parameter(torch.zeros(size, size if rank is None else rank))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = x.flatten(1)
        inner = x if self.down is None else nn.functional.linear(x, self.down)
        mapped = x + nn.functional.linear(inner, self.up)
        return unit(mapped) if self.normalized else mapped


class _Mapped(nn.Module):
    """The map and a linear head, or none."""

    def __init__(self, body: nn.Module, size: int, outputs: int | None) -> None:
        super().__init__()
        self.body = body
        self.head: nn.Module = nn.Identity() if outputs is None else nn.Linear(size, outputs)
        initialize(self.head)

    def forward(self, x: Tensor) -> Tensor:
        """[n, ...] to [n, outputs], or to [n, size] where there is no head."""
        found: Tensor = self.head(self.body(x))
        return found
