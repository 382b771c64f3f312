"""Attention, written out: the fused form has no second derivative on a CPU, and can't be mapped over."""

from collections.abc import Callable
from functools import partial
from math import sqrt
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Activation = Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": partial(functional.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
    "silu": functional.silu,
}
"""Activations of feed-forward parts, by the names that files have."""


def attended(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Multi-head attention: softmax(q k' / sqrt(width / heads) + mask) v for each head, concatenated.

    Args:
        query: Queries [n, L, width].
        key: Keys [n, L, width].
        value: Values [n, L, width].
        heads: Number of heads, among which the width is divided.
        mask: Mask [n, L], True for places that are attended to; None for all.
    """
    query, key, value = (_by_head(part, heads) for part in (query, key, value))
    scores = query @ key.transpose(-2, -1) / sqrt(query.shape[-1])
    if mask is not None:
        # Not -inf: where nothing counts, that would be no number.
        scores = scores.masked_fill(~mask[:, None, None, :], torch.finfo(scores.dtype).min)
    found: Tensor = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
    return found


def _by_head(x: Tensor, heads: int) -> Tensor:
    """[n, L, width] to [n, heads, L, width / heads]."""
    found: Tensor = x.unflatten(-1, (heads, -1)).transpose(1, 2)
    return found
