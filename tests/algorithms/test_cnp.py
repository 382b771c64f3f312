"""CNP against networks of torch, Gaussians of torch, and difference quotients in regression."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from metaray.algorithms import CNP
from metaray.algorithms.algorithm import start
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.errors import InputError
from metaray.experiment.experiment import Evaluation, Experiment
from metaray.models import MLP
from metaray.tasks import Regression

MakeEpisode = Callable[..., TensorEpisode]

SMALL = CNP(encoder=(5,), representation=4, decoder=(7,))
CLASSES = TaskShape((1, 2, 2), 3, classes=3)
VALUES = TaskShape((1, 2, 2), 1, Regression(target_size=2))


def bench(task_shape: TaskShape, *, algorithm: CNP = SMALL, batch_norm: bool = False) -> tuple[Context, Tensors]:
    network, meta = start(algorithm, MLP(hidden=(6,), batch_norm=batch_norm), task_shape, seed=1)
    context = Context(network=network.double(), ways=task_shape.ways, training=True, task=task_shape.task)
    return context, {name: value.double().requires_grad_() for name, value in meta.items()}


def regression_episode(make_episode: MakeEpisode, *, size: int | None = None) -> TensorEpisode:
    episode = make_episode(shots=2, size=size)
    support, query = (Examples(side.x, side.x.flatten(-3)[..., :2].sin()) for side in (episode.support, episode.query))
    return TensorEpisode(support, query, episode.seed, episode.classes)


def perceptron(meta: Tensors, prefix: str) -> nn.Module:
    """The same layers, of torch's own."""
    weights = [meta[name] for name in sorted(meta) if name.startswith(prefix) and name.endswith("weight")]
    layers: list[nn.Module] = []
    for i, weight in enumerate(weights):
        layer = nn.Linear(weight.shape[1], weight.shape[0]).double()
        layer.load_state_dict({"weight": weight, "bias": meta[f"{prefix}{i}.bias"]})
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_regression_by_hand(make_episode: MakeEpisode) -> None:
    context, meta = bench(VALUES)
    support, query, *_ = episode = regression_episode(make_episode)
    pairs = torch.cat([context.network(support.x), support.y], dim=1)
    r = perceptron(meta, "encoder:")(pairs).mean(0)
    seen = context.network(query.x)
    phi = perceptron(meta, "decoder:")(torch.cat([seen, r.repeat(len(seen), 1)], dim=1))
    mean, sigma = phi[:, :2], 0.1 + 0.9 * nn.functional.softplus(phi[:, 2:])
    outcome = SMALL.loss(meta, episode, context)
    adapted = SMALL.adapt(meta, support, context)
    torch.testing.assert_close(SMALL.predict(meta, adapted, query.x, context), mean)
    expected = -torch.distributions.Normal(mean, sigma).log_prob(query.y).sum(1).mean()
    torch.testing.assert_close(outcome.loss, expected)
    torch.testing.assert_close(outcome.score, nn.functional.mse_loss(mean, query.y).detach())


def test_classification_by_hand(make_episode: MakeEpisode) -> None:
    context, meta = bench(CLASSES)
    support, query, *_ = make_episode(shots=3)
    uneven = Examples(support.x[:-2], support.y[:-2])
    representations = perceptron(meta, "encoder:")(context.network(uneven.x))
    r = torch.cat([representations[uneven.y == k].mean(0) for k in range(3)])
    seen = context.network(query.x)
    logits = perceptron(meta, "decoder:")(torch.cat([seen, r.repeat(len(seen), 1)], dim=1))
    adapted = SMALL.adapt(meta, uneven, context)
    torch.testing.assert_close(SMALL.predict(meta, adapted, query.x, context), logits)


def in_order(episode: TensorEpisode, places: list[int]) -> TensorEpisode:
    """The same task with its classes at other places."""
    moved = torch.tensor(places)
    support, query = (Examples(side.x, moved[side.y]) for side in (episode.support, episode.query))
    return episode._replace(support=support, query=query)


@pytest.mark.parametrize("algorithm", [SMALL, CNP(encoder=(), representation=4, decoder=())])
def test_classification_learns_from_each_cyclic_order(algorithm: CNP, make_episode: MakeEpisode) -> None:
    """The mean over what the task and its two shifts are judged at, one by one; and it trains in no other way."""
    context, meta = bench(CLASSES, algorithm=algorithm)
    episode = make_episode(shots=3)
    judging = replace(context, training=False)
    orders = [in_order(episode, places) for places in ([0, 1, 2], [1, 2, 0], [2, 0, 1])]
    alone = [algorithm.loss(meta, order, judging) for order in orders]
    outcome = algorithm.loss(meta, episode, context)
    torch.testing.assert_close(outcome.loss, torch.stack([one.loss for one in alone]).mean())
    torch.testing.assert_close(outcome.score, alone[0].score)
    assert len({round(float(one.loss.detach()), 6) for one in alone}) == 3
    assert all(torch.isclose(algorithm.loss(meta, order, context).loss, outcome.loss) for order in orders)


@pytest.mark.parametrize("task_shape", [CLASSES, VALUES], ids=["classification", "regression"])
def test_sizes_of_the_layers(task_shape: TaskShape) -> None:
    meta = bench(task_shape)[1]
    values, slots, outputs = (0, 3, 3) if task_shape is CLASSES else (2, 1, 4)
    sizes = {"encoder:": (6 + values, 5, 4), "decoder:": (6 + slots * 4, 7, outputs)}
    for prefix, expected in sizes.items():
        for i, (before, after) in enumerate(pairwise(expected)):
            assert meta[f"{prefix}{i}.weight"].shape == (after, before)


@pytest.mark.parametrize("task_shape", [CLASSES, VALUES], ids=["classification", "regression"])
def test_meta_gradient_along_random_directions(task_shape: TaskShape, make_episode: MakeEpisode) -> None:
    context, meta = bench(task_shape, batch_norm=True)
    episode = make_episode() if task_shape is CLASSES else regression_episode(make_episode)
    gradient = SMALL.meta_gradient(meta, episode, context).gradient
    generator = torch.Generator().manual_seed(0)
    for name, value in meta.items():
        direction = torch.randn(value.shape, generator=generator, dtype=value.dtype)
        ahead, behind = (
            float(SMALL.loss({**meta, name: value + sign * 1e-6 * direction}, episode, context).loss.detach())
            for sign in (1, -1)
        )
        slope = float((gradient[name] * direction).sum())
        assert (ahead - behind) / 2e-6 == pytest.approx(slope, rel=1e-5, abs=1e-8), name


def test_a_chunk_of_regression_equals_its_episodes(make_episode: MakeEpisode) -> None:
    context, meta = bench(VALUES, batch_norm=True)
    chunk = regression_episode(make_episode, size=2)
    batched = SMALL.outcomes(meta, chunk, replace(context, batched=True))
    for i in range(2):
        support, query = (Examples(side.x[i], side.y[i]) for side in (chunk.support, chunk.query))
        outcome = SMALL.loss(meta, TensorEpisode(support, query, chunk.seed[i], chunk.classes[i]), context)
        torch.testing.assert_close(batched.loss[i], outcome.loss)
        torch.testing.assert_close(batched.score[i], outcome.score)


def test_sigma_stays_above_a_tenth(make_episode: MakeEpisode) -> None:
    context, meta = bench(VALUES)
    episode = regression_episode(make_episode)
    flat: Callable[[float], Tensor] = lambda raw: torch.tensor([0, 0, raw, raw], dtype=torch.float64)  # noqa: E731
    certain = {**meta, "decoder:1.weight": torch.zeros(4, 7).double(), "decoder:1.bias": flat(-1e3)}
    silent = episode._replace(query=Examples(episode.query.x, torch.zeros_like(episode.query.y)))
    loss = SMALL.loss(certain, silent, context).loss
    torch.testing.assert_close(loss, -2 * torch.distributions.Normal(0, 0.1).log_prob(torch.tensor(0.0)).double())


def test_ways_are_fixed(make_experiment: Callable[..., Experiment]) -> None:
    assert SMALL.fixed_ways and SMALL.outputs(TaskShape(ways=5)) is None
    judged = Evaluation(episodes=make_experiment().episodes.model_copy(update={"ways": 4}))
    with pytest.raises(InputError, match=r"cnp learner is fixed to its ways: it cannot train at 3 ways"):
        make_experiment(algorithm=SMALL, evaluation=judged)


def test_hyperparameters_out_of_range() -> None:
    with pytest.raises(InputError, match=r"representation: .*\(got 0\)"):
        CNP.parse({"representation": 0}, where="cnp")
    with pytest.raises(InputError, match="encoder"):
        CNP.parse({"encoder": [8, 0]}, where="cnp")
