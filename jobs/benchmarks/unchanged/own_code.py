"""Code of a user's own for the comparison: networks and an algorithm, by import path.

A copy of this file lies in the folder where each side trains, and beside the fixtures, whose registered learners name
it: so it uses of metaray only what users may rely on.
"""

import math
import os
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import metaray
from metaray.algorithms import Algorithm

TREE = "METARAY_UNCHANGED_TREE"
"""Names the tree that a process is to import metaray from: whoever imports this module, Ray's workers too, looks."""

if TREE in os.environ and not Path(metaray.__file__).resolve().is_relative_to(Path(os.environ[TREE]).resolve()):
    raise ImportError(f"metaray comes from {metaray.__file__}, not from {os.environ[TREE]}")

WIDTH = 6


class Dropping(nn.Module):
    """Two linear layers with dropout between them."""

    def __init__(self, *, feature_shape: tuple[int, ...], outputs: int | None) -> None:
        super().__init__()
        self.body = nn.Linear(math.prod(feature_shape), WIDTH)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Identity() if outputs is None else nn.Linear(WIDTH, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, outputs]."""
        found: Tensor = self.head(self.drop(torch.tanh(self.body(x.flatten(1)))))
        return found


class PartlyFrozen(nn.Module):
    """A body that nobody trains, a batch norm, a buffer, and a head."""

    scale: Tensor

    def __init__(self, *, feature_shape: tuple[int, ...], outputs: int | None, scale: float = 0.5) -> None:
        super().__init__()
        self.body = nn.Linear(math.prod(feature_shape), WIDTH).requires_grad_(False)
        self.norm = nn.BatchNorm1d(WIDTH)
        self.register_buffer("scale", torch.full((WIDTH,), scale))
        self.head = nn.Identity() if outputs is None else nn.Linear(WIDTH, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, outputs]."""
        hidden = torch.tanh(self.norm(self.body(x.flatten(1)))) * self.scale
        found: Tensor = self.head(hidden)
        return found


class CityBlock(Algorithm):
    """The nearest class mean in a learned embedding, by the sum of absolute differences.

    Attributes:
        sharpness: factor of the distances.
    """

    kind: ClassVar[str] = "city_block"
    sharpness: float = 1.0

    def outputs(self, problem: Any) -> int | None:
        """An embedding network, whatever the ways."""
        return None

    def adapt(self, meta: dict[str, Tensor], support: Any, context: Any) -> dict[str, Tensor]:
        """The class means, [N, embedding]."""
        embedding = context.forward(meta, support.x)
        member = nn.functional.one_hot(support.y, context.ways).to(embedding.dtype)
        return {"means": (member.T @ embedding) / member.sum(0)[:, None]}

    def predict(self, meta: dict[str, Tensor], adapted: dict[str, Tensor], x: Tensor, context: Any) -> Tensor:
        """Minus the distances, [n, N]."""
        difference: Tensor = context.forward(meta, x)[:, None] - adapted["means"]
        return -self.sharpness * difference.abs().sum(dim=-1)
