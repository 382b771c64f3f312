"""The four-block convolutional network."""

import pytest
import torch

from metaray.errors import InputError
from metaray.models import Conv4


@pytest.mark.parametrize(
    ("downsample", "side", "embedding"), [("max_pool", 28, 64), ("max_pool", 84, 1600), ("stride", 28, 64)]
)
def test_embedding_sizes_of_the_literature(downsample: str, side: int, embedding: int) -> None:
    network = Conv4.parse({"downsample": downsample}, where="model").build((1, side, side), None)
    with torch.no_grad():
        assert network(torch.randn(2, 1, side, side)).shape == (2, embedding)


def test_parameter_count_of_the_literature() -> None:
    # 112k with a 5-way head on 28x28 grey images: 640 + 3 * 36928 + 4 * 128 + 325.
    network = Conv4().build((1, 28, 28), 5)
    assert sum(p.numel() for p in network.parameters()) == 640 + 3 * 36928 + 4 * 128 + 325


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 17, 30)])
@pytest.mark.parametrize("downsample", ["max_pool", "stride"])
def test_odd_sizes_and_colours(shape: tuple[int, ...], downsample: str) -> None:
    network = Conv4.parse({"channels": 4, "downsample": downsample}, where="model").build(shape, 5)
    assert network(torch.randn(2, *shape)).shape == (2, 5)


def test_inputs_it_cannot_take() -> None:
    with pytest.raises(InputError, match=r"not features of shape \(784,\)"):
        Conv4().build((784,), 5)
    with pytest.raises(InputError, match="15x40 is smaller than 16x16"):
        Conv4().build((1, 15, 40), 5)
    with pytest.raises(InputError, match=r"channels: .*greater than 0 \(got 0\)"):
        Conv4.parse({"channels": 0}, where="model")
