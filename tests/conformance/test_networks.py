"""Networks that are not metaray's own, and tasks of other ways than trained."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from metaray.algorithms import ALGORITHMS
from metaray.models import Custom
from metaray.models.state import kept
from tests.conformance.bench import Bench, Trial, close, episode_of, every


class Mixed(nn.Module):
    """Layer norm, dropout, a buffer, a batch norm with running statistics, a head of the usual name."""

    shift: Tensor

    def __init__(self, feature_shape: tuple[int, ...], outputs: int | None) -> None:
        super().__init__()
        self.register_buffer("shift", torch.full((4,), 0.5))
        self.norm, self.hidden = nn.LayerNorm(4), nn.Linear(4, 6)
        self.batch_norm, self.dropout = nn.BatchNorm1d(6), nn.Dropout(0.5)
        self.head = nn.Identity() if outputs is None else nn.Linear(6, outputs)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.batch_norm(self.hidden(self.norm(x.flatten(1) + self.shift)))
        found: Tensor = self.head(self.dropout(torch.tanh(hidden)))
        return found


class Partly(nn.Module):
    """A frozen layer and a frozen batch norm before layers that learn."""

    def __init__(self, feature_shape: tuple[int, ...], outputs: int | None) -> None:
        super().__init__()
        self.stem, self.norm, self.hidden = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 5)
        assert self.norm.running_mean is not None and self.norm.running_var is not None
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.stem.requires_grad_(False)
        self.norm.requires_grad_(False)
        self.head = nn.Identity() if outputs is None else nn.Linear(5, outputs)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(torch.tanh(self.hidden(self.norm(self.stem(x.flatten(1))))))
        return found


MIXED, PARTLY = (Custom(path=f"tests.conformance.test_networks:{name}") for name in ("Mixed", "Partly"))


@every(trained=True)
def test_a_users_network(trial: Trial) -> None:
    """It trains, its buffers stay, and judging it is a function of its arguments, dropout or not."""
    bench = Bench(trial, model=MIXED)
    episode = bench.episode(shots=3)
    before = {name: tensor.clone() for name, tensor in bench.context.network.state_dict().items()}
    torch.manual_seed(0)
    found = bench.algorithm.meta_gradient(bench.meta, episode, bench.context)
    assert all(tensor.isfinite().all() for tensor in found.gradient.values())
    assert sum(float(tensor.abs().sum()) for tensor in found.gradient.values()) > 0
    judging = replace(bench.context, training=False)
    with torch.no_grad():
        meta = {name: tensor.detach() for name, tensor in bench.meta.items()}
        once, again = (bench.algorithm.outcomes(meta, episode, judging) for _ in range(2))
    assert torch.equal(once.loss, again.loss)
    after = bench.context.network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@every(trained=True)
def test_a_users_network_with_frozen_parts(trial: Trial) -> None:
    """They are neither trained nor adapted, but have their part in what comes out, in chunks as one by one."""
    bench = Bench(trial, model=PARTLY)
    network, chunk = bench.context.network, bench.episode(shots=3, size=2)
    held = kept(network)
    assert sorted(held) == [f"norm.{n}" for n in ("bias", "running_mean", "running_var", "weight")] + [
        "stem.bias",
        "stem.weight",
    ]
    assert not any(name.endswith(tuple(held)) for name in bench.meta)
    before = {name: tensor.clone() for name, tensor in held.items()}
    together = bench.algorithm.meta_gradient(bench.meta, chunk, bench.context.with_batched(True))
    one, other = (bench.algorithm.meta_gradient(bench.meta, episode_of(chunk, i), bench.context) for i in range(2))
    for name in bench.meta:
        close(together.gradient[name], one.gradient[name] + other.gradient[name])
    assert all(torch.equal(before[name], tensor) for name, tensor in kept(network).items())
    with torch.no_grad():
        for name in ("stem.weight", "norm.running_mean"):
            held[name] += 0.5
            moved = bench.algorithm.outcomes(bench.meta, episode_of(chunk, 0), bench.context).loss
            assert not torch.equal(moved, one.outcome.loss), name
            held[name].copy_(before[name])


@every(trained=True, tasks=["classification"])
def test_other_ways_than_trained(trial: Trial) -> None:
    """Unless an algorithm is fixed to its ways."""
    if ALGORITHMS[trial.kind]().fixed_ways:
        return
    trained, other = Bench(trial, ways=3, training=False), Bench(trial, ways=5, training=False)
    episode = other.episode()
    trained.context = replace(trained.context, ways=5)
    logits = trained.output(episode.support, episode.query.x)
    assert logits.shape == (10, 5) and logits.isfinite().all()
