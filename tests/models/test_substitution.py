"""Modules called with other parameters: tied ones, and modules with two names in a network."""

import pytest
import torch
from torch import Tensor, nn

from metaray.algorithms import MAML
from metaray.models.substitution import called_with
from tests.conformance.bench import Bench, Trial, close, episode_of
from tests.user_networks import own


class Tied(nn.Module):
    """Two layers with the weights of one, and a layer that is there under two names, one of them in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.twice = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.other.weight = self.one.weight
        self.layers = nn.ModuleList([self.twice, nn.Tanh(), self.twice])

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        for layer in (self.one, self.other, *self.layers):
            x = layer(x)
        return scale * x


def test_own_parameters_come_back_and_all_places_are_taken() -> None:
    network, x = Tied(), torch.randn(4, 3)
    before = dict(network.named_parameters())
    others = {name: torch.randn(parameter.shape) for name, parameter in before.items()}
    found = called_with(network, others, (x,), {"scale": 2.0})
    assert all(parameter is before[name] for name, parameter in network.named_parameters())
    assert network.other.weight is network.one.weight
    twin = Tied()
    for name, parameter in twin.named_parameters():
        parameter.data = others[name]
    assert torch.equal(found, twin(x, scale=2.0))


def test_what_is_not_given_stays() -> None:
    network, x = Tied(), torch.randn(4, 3)
    assert torch.equal(called_with(network, {}, (x,)), network(x))
    bias = torch.randn(3)
    found = called_with(network, {"twice.bias": bias}, (x,))
    network.twice.bias.data = bias
    assert torch.equal(found, network(x))


@pytest.mark.parametrize("adapts", [["*"], ["repeated.*"]])
def test_the_meta_gradient_of_a_layer_with_two_names(adapts: list[str]) -> None:
    """That of one step by hand, and the network is as it was, one by one and in chunks."""
    bench = Bench(
        Trial("maml", "classification", "inductive"),
        model=own("Repeating"),
        settings={"inner_lr": 0.1, "adapts": adapts},
    )
    network, chunk = bench.context.network, bench.episode(size=2)
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    expected = {name: torch.zeros_like(tensor) for name, tensor in bench.meta.items()}
    moving = [name for name in bench.meta if adapts == ["*"] or name.startswith("repeated")]
    assert len(moving) < len(bench.meta) or adapts == ["*"]
    for i in range(2):
        episode = episode_of(chunk, i)

        def loss(theta: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            h = x.flatten(1) @ theta["body.weight"].T + theta["body.bias"]
            for _ in range(2):
                h = torch.tanh(h @ theta["repeated.0.weight"].T + theta["repeated.0.bias"])
            h = torch.tanh(h) @ theta["head.weight"].T + theta["head.bias"]
            return nn.functional.cross_entropy(h, y)

        gradients = torch.autograd.grad(
            loss(bench.meta, *episode.support), [bench.meta[name] for name in moving], create_graph=True
        )
        steps = dict(zip(moving, gradients, strict=True))
        theta = bench.meta | {name: bench.meta[name] - 0.1 * g for name, g in steps.items()}
        found = torch.autograd.grad(loss(theta, *episode.query), list(bench.meta.values()))
        expected = {name: expected[name] + g for name, g in zip(bench.meta, found, strict=True)}
    assert isinstance(bench.algorithm, MAML)
    one_by_one = [bench.algorithm.meta_gradient(bench.meta, episode_of(chunk, i), bench.context) for i in range(2)]
    together = bench.algorithm.meta_gradient(bench.meta, chunk, bench.context.with_batched(True))
    for name in bench.meta:
        close(one_by_one[0].gradient[name] + one_by_one[1].gradient[name], expected[name], tolerance=1e-9)
        close(together.gradient[name], expected[name], tolerance=1e-8)
    assert all(torch.equal(parameter, before[name]) for name, parameter in network.named_parameters())
