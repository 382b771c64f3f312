"""Scores of predictions that tell positives from negatives, besides the area under the ROC curve."""

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
    """The mean of the shares of positives and of negatives that are told right; [], NaN where one of them is missing.

    Args:
        positive: [n] whether each is told to be one.
        y: [n] labels, 1 of a positive.
    """
    right = positive == (y == 1)
    shares = [(right & (y == label)).sum() / (y == label).sum() for label in (0, 1)]
    return (shares[0] + shares[1]) / 2
