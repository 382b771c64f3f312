"""The area under the ROC curve, against the comparison of every positive with every negative."""

import pytest
import torch
from torch import Tensor

from metaray.tasks.ranking import area_under_roc


def compared(margin: Tensor, y: Tensor) -> Tensor:
    """Each with each."""
    difference = margin[:, None] - margin[None, :]
    positive = y.to(margin.dtype)
    pairs = positive[:, None] * (1 - positive)[None, :]
    won = (difference > 0).to(margin.dtype) + (difference == 0).to(margin.dtype) / 2
    return (pairs * won).sum() / pairs.sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [2, 5, 10_000])
def test_it_is_the_comparison_of_each_with_each(dtype: torch.dtype, levels: int) -> None:
    """To the bit, ties and NaN included."""
    generator = torch.Generator().manual_seed(levels)
    for n in (2, 7, 300):
        margin = (torch.randint(levels, (n,), generator=generator) - levels / 2).to(dtype)
        y = torch.randint(2, (n,), generator=generator)
        y[:2] = torch.tensor([0, 1])
        if n == 300:
            margin[5:9] = torch.nan
        expected = compared(margin, y)
        assert torch.equal(area_under_roc(margin, y), expected)


def test_it_is_mapped_over_tasks() -> None:
    generator = torch.Generator().manual_seed(0)
    margin = torch.randint(9, (4, 50), generator=generator).float()
    y = torch.randint(2, (4, 50), generator=generator)
    alone = torch.stack([area_under_roc(one, of) for one, of in zip(margin, y, strict=True)])
    assert torch.equal(torch.vmap(area_under_roc)(margin, y), alone)


def test_all_alike_has_no_area() -> None:
    assert area_under_roc(torch.arange(3.0), torch.ones(3, dtype=torch.int64)).isnan()


def test_many_queries_need_little_memory() -> None:
    """As many as an assay has molecules: each with each would be 40,000 million pairs."""
    margin = torch.arange(200_000.0)
    y = (torch.arange(200_000) >= 150_000).long()
    assert float(area_under_roc(margin, y)) == 1
    assert float(area_under_roc(-margin, y)) == 0
