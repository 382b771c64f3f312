"""Building networks: seeded, without touching the global generator."""

import math

import pytest
import torch
from torch import nn

from metaray.models import MLP
from metaray.models.model import Network, SpatialMean, build_seeded, initialize


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    one = build_seeded(MLP(hidden=(4,)), (1, 2, 2), 3, seed=5)
    torch.manual_seed(2)
    two = build_seeded(MLP(hidden=(4,)), (1, 2, 2), 3, seed=5)
    other = build_seeded(MLP(hidden=(4,)), (1, 2, 2), 3, seed=6)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1])
def test_the_global_generator_is_left_as_it_was(seed: int) -> None:
    before = torch.get_rng_state()
    build_seeded(MLP(hidden=(4,)), (4,), 3, seed=seed)
    assert torch.equal(before, torch.get_rng_state())


def test_a_network_without_outputs_has_no_head() -> None:
    network = Network(nn.Flatten(), 4, None)
    assert network(torch.ones(2, 1, 2, 2)).shape == (2, 4) and not list(network.parameters())
    assert [name for name, _ in Network(nn.Flatten(), 4, 3).named_parameters()] == ["head.weight", "head.bias"]


def test_glorot_bounds_and_zero_biases() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(50, 30, bias=False))
    initialize(network)
    for name, bound in (("0.weight", math.sqrt(6 / (27 + 72))), ("1.weight", math.sqrt(6 / 80))):
        weight = network.get_parameter(name).detach()
        assert weight.abs().max() <= bound and weight.abs().max() > 0.9 * bound
    assert bool((network.get_parameter("0.bias") == 0).all())


def test_the_mean_over_places() -> None:
    x = torch.arange(24.0).view(2, 3, 2, 2)
    assert SpatialMean()(x).tolist() == x.flatten(2).mean(2).tolist()
