"""The network of R2D2."""

import pytest
import torch

from metaray.errors import InputError
from metaray.models import MODELS, R2D2Net
from metaray.models.model import build_seeded

NARROW = (3, 4, 5, 6)


@pytest.mark.parametrize(
    ("channels", "shape", "size"),
    [
        ((96, 192, 384, 512), (3, 32, 32), 3456 + 4608),
        ((64, 64, 64, 64), (3, 32, 32), 576 * 2),
        ((64, 64, 64, 64), (1, 28, 28), 256 * 2),
        ((64, 64, 64, 64), (3, 84, 84), 5184 * 2),
    ],
)
def test_embedding_sizes_of_the_authors_code(
    channels: tuple[int, int, int, int], shape: tuple[int, ...], size: int
) -> None:
    network = R2D2Net(channels=channels).build(shape, None)
    with torch.no_grad():
        assert network(torch.randn(2, *shape)).shape == (2, size)
    assert R2D2Net(channels=channels).build(shape, 5)(torch.randn(2, *shape)).shape == (2, 5)


def test_equals_its_layers_by_hand() -> None:
    network = build_seeded(R2D2Net(channels=NARROW), (3, 32, 32), None, seed=0).double()
    weights = dict(network.named_parameters())
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = network(x)
    maps = []
    for block, stride in zip((1, 2, 3, 4), (2, 2, 2, 1), strict=True):
        layers = (("conv.weight", "conv.bias"), ("norm.weight", "norm.bias"))
        conv, norm = ([weights[f"body.block{block}.{name}"] for name in names] for names in layers)
        x = torch.nn.functional.conv2d(x, conv[0], conv[1], padding=1)
        x = torch.nn.functional.batch_norm(x, None, None, norm[0], norm[1], training=True)
        # The usual order, ReLU before pooling: the same, as neither changes which is larger.
        x = torch.nn.functional.max_pool2d(torch.nn.functional.leaky_relu(x, 0.1), 2, stride=stride)
        maps.append(x)
    third = torch.nn.functional.max_pool2d(maps[2], 2, stride=1)
    torch.testing.assert_close(found, torch.cat([third.flatten(1), maps[3].flatten(1)], dim=1))


def test_the_last_two_blocks_are_dropped_in_training_alone() -> None:
    network = build_seeded(R2D2Net(channels=NARROW, drop_rate=0.5), (3, 16, 16), None, seed=0)
    x = torch.randn(64, 3, 16, 16)
    network.train()
    zeros = (network(x) == 0).float().mean(0)[5:]
    assert zeros.min() > 0.3 and zeros.max() < 0.7
    network.eval()
    kept = build_seeded(R2D2Net(channels=NARROW), (3, 16, 16), None, seed=0)
    torch.testing.assert_close(network(x), kept(x))
    assert list(network.state_dict()) == list(kept.state_dict())


@pytest.mark.parametrize(
    ("shape", "message"), [((8,), r"not features of shape \(8,\)"), ((3, 15, 40), "15x40 is smaller than 16x16")]
)
def test_inputs_it_cannot_take(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        R2D2Net().build(shape, 5)


def test_it_is_known_by_its_kind() -> None:
    assert MODELS["r2d2_net"] is R2D2Net
