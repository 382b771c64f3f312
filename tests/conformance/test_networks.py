"""Networks that are not metaray's own, and tasks of other ways than trained."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from metaray.algorithms import ALGORITHMS
from metaray.models import Custom
from tests.conformance.bench import Bench, Trial, every


class Mixed(nn.Module):
    """Layer norm, dropout, a buffer, a batch norm with running statistics, a head of the usual name."""

    def __init__(self, feature_shape: tuple[int, ...], outputs: int | None) -> None:
        super().__init__()
        self.register_buffer("shift", torch.full((4,), 0.5))
        self.norm, self.hidden = nn.LayerNorm(4), nn.Linear(4, 6)
        self.batch_norm, self.dropout = nn.BatchNorm1d(6), nn.Dropout(0.5)
        self.head = nn.Identity() if outputs is None else nn.Linear(6, outputs)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.batch_norm(self.hidden(self.norm(x.flatten(1) + self.shift)))
        return self.head(self.dropout(torch.tanh(hidden)))


MIXED = Custom(path="tests.conformance.test_networks:Mixed")


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


@every(trained=True, tasks=["classes"])
def test_other_ways_than_trained(trial: Trial) -> None:
    """Unless an algorithm is fixed to its ways."""
    if ALGORITHMS[trial.kind]().fixed_ways:
        return
    trained, other = Bench(trial, ways=3, training=False), Bench(trial, ways=5, training=False)
    episode = other.episode()
    trained.context = replace(trained.context, ways=5)
    logits = trained.output(episode.support, episode.query.x)
    assert logits.shape == (10, 5) and logits.isfinite().all()
