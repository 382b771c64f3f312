"""Scores of how well numbers put positives before negatives, without a comparison of each with each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def area_under_roc(margin: Tensor, positive: Tensor) -> Tensor:
    """The share of pairs of a positive and a negative in which the positive has the larger margin, ties by half.

    Each positive is compared with the sorted margins, so that time and memory grow as n log n, not as n^2. Wins are
    counted in float64, which is exact. Works inside `torch.vmap`.

    Args:
        margin: [n]; one that is NaN wins against none and loses to none.
        positive: [n] 1 for a positive, 0 for a negative.

    Returns:
        [] of the type of `margin`; NaN where all are alike.
    """
    import torch

    known = ~margin.isnan()
    positive = positive.to(torch.float64)
    pairs = positive.sum() * (1 - positive).sum()
    # A NaN takes part in no comparison: it weighs nothing, wherever it is put.
    margin = torch.where(known, margin, torch.zeros_like(margin))
    wins, losses = positive * known, (1 - positive) * known
    ordered, places = margin.sort()
    below = torch.cat([losses.new_zeros(1), losses[places].cumsum(0)])
    first = torch.searchsorted(ordered, margin)
    last = torch.searchsorted(ordered, margin, right=True)
    won = (below[first] + below[last]) / 2
    return (wins * won).sum().to(margin.dtype) / pairs.to(margin.dtype)
