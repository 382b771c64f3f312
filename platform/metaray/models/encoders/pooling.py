"""The way from a vector a place to one vector an input."""

import torch
from torch import Tensor

from metaray.models.encoders.architecture import Pooling

TINY = 1e-24
"""Below this, squared, a length counts as none, so that nothing is divided by zero."""


def pooled(vectors: Tensor, mask: Tensor, pooling: Pooling, *, normalized: bool) -> Tensor:
    """Pool vectors [n, L, width] over the places that the mask [n, L] selects, to [n, width].

    Args:
        vectors: Vectors of all places, [n, L, width].
        mask: Mask [n, L], True for the places that count.
        pooling: Pooling: "mean" over the places that count, or the first place ("cls").
        normalized: Whether to scale the result to length 1.
    """
    if pooling == "cls":
        found = vectors[:, 0]
    else:
        weights = mask[..., None].to(vectors.dtype)
        found = (vectors * weights).sum(1) / weights.sum(1).clamp_min(1)
    return unit(found) if normalized else found


def unit(x: Tensor) -> Tensor:
    """[n, width], each of length 1; zeros stay zeros."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True).clamp_min(TINY))
