"""Reptile: what its gradient is made of, and the mini-batches."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from metaray.algorithms import Reptile
from metaray.algorithms.algorithm import start
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.reptile import permutation
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.models import MLP
from tests.algorithms.quadratic import of_square

MakeEpisode = Callable[..., TensorEpisode]


def bench(algorithm: Reptile) -> tuple[Tensors, Context]:
    network, meta = start(algorithm, MLP(hidden=(6,), batch_norm=False), TaskShape((1, 2, 2), 3), seed=1)
    context = Context(network=network.double(), ways=3, training=True)
    return {name: tensor.double().requires_grad_() for name, tensor in meta.items()}, context


@pytest.mark.parametrize(("a", "steps"), [(0.1, 0), (0.1, 1), (0.4, 3)])
def test_meta_gradient_of_a_square(a: float, steps: int) -> None:
    algorithm = Reptile(inner_lr=a, inner_steps=steps, inner_optimizer="sgd", batch_size=None)
    assert float(of_square(algorithm, 1.7).gradient["w"]) == pytest.approx(1.7 * (1 - (1 - 2 * a) ** steps), rel=1e-12)


def test_adam_takes_first_steps_of_the_inner_rate() -> None:
    found = of_square(Reptile(inner_lr=0.01, inner_steps=1), 1.7).gradient["w"]
    assert float(found) == pytest.approx(0.01, rel=1e-6)


def test_it_is_torchs_adam_without_momentum(make_episode: MakeEpisode) -> None:
    algorithm = Reptile(inner_lr=0.02, inner_steps=4, batch_size=None)
    meta, context = bench(algorithm)
    episode = make_episode()
    found = algorithm.meta_gradient(meta, episode, context).gradient
    network = context.network
    network.load_state_dict({name: tensor.detach() for name, tensor in meta.items()})
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02, betas=(0.0, 0.999), eps=1e-8)
    x, y = (torch.cat([getattr(side, part) for side in (episode.support, episode.query)]) for part in ("x", "y"))
    for _ in range(4):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    for name, tensor in network.named_parameters():
        torch.testing.assert_close(found[name], meta[name].detach() - tensor.detach(), rtol=1e-9, atol=1e-12)


def test_mini_batches_go_through_the_data_once_a_round(
    make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    algorithm = Reptile(inner_steps=5, batch_size=4, inner_optimizer="sgd")
    meta, context = bench(algorithm)
    episode = make_episode(shots=2, queries=2)._replace(seed=torch.tensor(99))
    seen: list[Examples] = []
    monkeypatch.setattr(
        "metaray.algorithms.reptile.support_loss",
        lambda batch, given: seen.append(batch) or (lambda theta: given.forward(theta, batch.x).square().mean()),
    )
    algorithm.meta_gradient(meta, episode, context)
    data = torch.cat([episode.support.x, episode.query.x]).flatten(1)
    rows = [int((data == x.flatten()).all(dim=1).nonzero()) for batch in seen for x in batch.x]
    assert len(seen) == 5 and all(len(batch.x) == 4 for batch in seen)
    assert sorted(rows[:12]) == list(range(12)) and rows[:12] != list(range(12)) and rows[12:] != rows[:8]


def test_the_seed_decides_the_mini_batches(make_episode: MakeEpisode) -> None:
    algorithm = Reptile(inner_steps=3, batch_size=4, inner_lr=0.1)
    meta, context = bench(algorithm)
    episode = make_episode()

    def gradient(seed: int) -> Tensors:
        return algorithm.meta_gradient(meta, episode._replace(seed=torch.tensor(seed)), context).gradient

    one, again, other = gradient(1), gradient(1), gradient(2)
    assert all(torch.equal(one[name], again[name]) for name in meta)
    assert any(not torch.equal(one[name], other[name]) for name in meta)


@pytest.mark.parametrize("seed", [0, 1, -(2**63), 2**63 - 1])
def test_permutations(seed: int) -> None:
    rounds = [permutation(torch.tensor(seed), number, 50).tolist() for number in range(20)]
    assert all(sorted(one) == list(range(50)) for one in rounds)
    assert len({tuple(one) for one in rounds}) == 20
    means = torch.tensor(rounds, dtype=torch.float64).mean(dim=0)
    assert means.std() < 8  # of a uniform permutation: 14.4 / sqrt(20) = 3.2


def test_adaptation_takes_steps_of_its_own(make_episode: MakeEpisode) -> None:
    algorithm = Reptile(inner_steps=1, eval_steps=7, inner_lr=0.1)
    meta, context = bench(algorithm)
    judged = replace(context, training=False)
    own, seven = (
        algorithm.adapt(meta, make_episode().support, given) for given in (judged, replace(judged, inner_steps=7))
    )
    assert all(torch.equal(own[name], seven[name]) for name in meta)
