"""Scores of predictions that tell positives from negatives, without a comparison of each with each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def average_precision(margin: Tensor, y: Tensor) -> Tensor:
    """The mean, over the positives, of the share of positives among all that are ranked no lower; [].

    Examples of equal margin are ranked together, so that their order does not matter: the sum of (R_k - R_{k-1}) P_k
    over the thresholds, with recall R and precision P. NaN where there is no positive, or a margin is NaN. Works inside
    `torch.vmap`.

    Args:
        margin: [n], higher for what is rather a positive.
        y: [n] labels, 1 of a positive.
    """
    import torch

    ranked, order = margin.sort(descending=True)
    found = y.gather(0, order).cumsum(0)  # of integers: sums of floats have no fixed order on a GPU
    places = torch.arange(len(ranked), device=margin.device)
    # The last place of each run of equals, for all of its members.
    closes = torch.cat([ranked[1:] != ranked[:-1], torch.ones_like(ranked[:1], dtype=torch.bool)])
    last = torch.where(closes, places, len(ranked)).flip(0).cummin(0).values.flip(0)
    precision = found.gather(0, last).to(margin.dtype) / (last + 1).to(margin.dtype)
    positive = y.gather(0, order).to(margin.dtype)
    mean = (positive * precision).sum() / positive.sum()
    return torch.where(margin.isnan().any(), torch.nan, mean)


def balanced_accuracy(positive: Tensor, y: Tensor) -> Tensor:
    """Mean of the accuracies on positives and on negatives, a scalar; NaN if one of them is missing.

    Args:
        positive: Whether each of the n examples is predicted to be positive [n].
        y: Labels [n], 1 for a positive.
    """
    right = positive == (y == 1)
    shares = [(right & (y == label)).sum() / (y == label).sum() for label in (0, 1)]
    return (shares[0] + shares[1]) / 2


def area_under_roc(margin: Tensor, positive: Tensor) -> Tensor:
    """Share of pairs of a positive and a negative in which the positive has the larger margin, ties by half.

    Each positive is compared with the sorted margins, so that time and memory grow as n log n, not as n^2. Wins are
    counted in float64, which is exact. Works inside `torch.vmap`.

    Args:
        margin: Margins [n]; a NaN wins against none and loses to none.
        positive: Labels [n], 1 for a positive and 0 for a negative.

    Returns:
        A scalar of the type of `margin`; NaN if all labels are the same.
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
