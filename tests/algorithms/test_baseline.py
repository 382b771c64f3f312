"""Joint training against torch's own losses, and fine-tuning against torch's own optimiser."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from metaray.algorithms import Baseline
from metaray.algorithms.algorithm import start
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.prefixes import without
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.errors import InputError
from metaray.models import MLP
from metaray.models.batch_norm import Protocol
from metaray.models.model import Model
from metaray.tasks import Regression

MakeEpisode = Callable[..., TensorEpisode]

CLASSES = 7
PROBLEM = TaskShape((1, 2, 2), 3, classes=CLASSES)
REGRESSION = TaskShape((1, 2, 2), 1, Regression(target_size=2))


def bench(
    task_shape: TaskShape = PROBLEM, model: Model | None = None, *, training: bool = True
) -> tuple[Context, Tensors]:
    network, meta = start(Baseline(), model or MLP(hidden=(6,)), task_shape, seed=1)
    context = Context(network=network.double(), ways=task_shape.ways, training=training, task=task_shape.task)
    return context, {name: value.double().requires_grad_() for name, value in meta.items()}


def regression_episode(make_episode: MakeEpisode) -> TensorEpisode:
    episode = make_episode(shots=4)
    support, query = (Examples(side.x, side.x.flatten(1)[:, :2].sin()) for side in (episode.support, episode.query))
    return TensorEpisode(support, query, episode.seed, episode.classes)


def test_training_loss_is_that_of_all_classes_on_all_examples(make_episode: MakeEpisode) -> None:
    context, meta = bench()
    episode = make_episode()._replace(classes=torch.tensor([4, 0, 6]))
    outcome = Baseline().loss(meta, episode, context)
    x = torch.cat([episode.support.x, episode.query.x])
    features = torch.func.functional_call(context.network, without(meta, "joint:"), (x,))
    logits = features @ meta["joint:weight"].T + meta["joint:bias"]
    labels = torch.tensor([4] * 2 + [0] * 2 + [6] * 2).repeat(2)
    assert logits.shape == (12, CLASSES)
    torch.testing.assert_close(outcome.loss, nn.functional.cross_entropy(logits, labels))
    assert float(outcome.score) == float((logits.argmax(1) == labels).double().mean())


def test_training_never_adapts(make_episode: MakeEpisode) -> None:
    context, meta = bench()
    outcomes = [Baseline(inner_steps=n, inner_lr=1).loss(meta, make_episode(), context) for n in (0, 9)]
    assert torch.equal(outcomes[0].loss, outcomes[1].loss)


@pytest.mark.parametrize(("momentum", "dampening"), [(0.9, 0.9), (0.9, 0.0), (0.0, 0.0), (0.5, 1.0)])
def test_fine_tuning_is_that_of_torch(momentum: float, dampening: float, make_episode: MakeEpisode) -> None:
    context, meta = bench(model=MLP(hidden=(6,), batch_norm=False), training=False)
    episode = make_episode()
    algorithm = Baseline(inner_lr=0.3, inner_steps=12, momentum=momentum, dampening=dampening, weight_decay=0.02)
    with torch.no_grad():
        adapted = algorithm.adapt(meta, episode.support, context)
        features = torch.func.functional_call(context.network, without(meta, "joint:"), (episode.support.x,))
    head = nn.Linear(6, 3).double()
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    sgd = torch.optim.SGD(head.parameters(), lr=0.3, momentum=momentum, dampening=dampening, weight_decay=0.02)
    for _ in range(12):
        sgd.zero_grad()
        nn.functional.cross_entropy(head(features), episode.support.y).backward()
        sgd.step()
    assert adapted.keys() == {"weight", "bias"}
    torch.testing.assert_close(adapted["weight"], head.weight.detach())
    torch.testing.assert_close(adapted["bias"], head.bias.detach())


@pytest.mark.parametrize("protocol", ["transductive", "inductive"])
def test_each_side_is_normalised_as_its_protocol_says(protocol: Protocol, make_episode: MakeEpisode) -> None:
    context, meta = bench(training=False)
    episode = make_episode(shots=3)
    network, body = context.network, without(meta, "joint:")
    algorithm = Baseline(batch_norm=protocol, inner_lr=0.5)
    with torch.no_grad():
        adapted = algorithm.adapt(meta, episode.support, context)
        logits = algorithm.predict(meta, adapted, episode.query.x, context)
        over = episode.query.x if protocol == "transductive" else episode.support.x
        wide = over.flatten(1) @ body["body.1.weight"].T + body["body.1.bias"]
        hidden = episode.query.x.flatten(1) @ body["body.1.weight"].T + body["body.1.bias"]
        features = ((hidden - wide.mean(0)) / (wide.var(0, correction=0) + 1e-5).sqrt()).relu()
    torch.testing.assert_close(logits, features @ adapted["weight"].T + adapted["bias"])
    assert torch.equal(context.forward(body, episode.support.x), network(episode.support.x))


def test_before_adaptation_every_class_is_as_likely(make_episode: MakeEpisode) -> None:
    context, meta = bench(training=False)
    episode = make_episode()
    adapted = Baseline(batch_norm="transductive").adapt(meta, episode.support, replace(context, inner_steps=0))
    assert all(not value.any() for value in adapted.values())
    assert not Baseline(batch_norm="transductive").predict(meta, adapted, episode.query.x, context).any()


def test_permuted_labels_permute_the_logits(make_episode: MakeEpisode) -> None:
    context, meta = bench(training=False)
    episode, order = make_episode(), torch.tensor([2, 0, 1])
    renamed = Examples(episode.support.x, order[episode.support.y])
    before, after = (
        Baseline().predict(meta, Baseline().adapt(meta, support, context), episode.query.x, context)
        for support in (episode.support, renamed)
    )
    torch.testing.assert_close(after[:, order], before)


def test_ways_are_free() -> None:
    assert not Baseline().fixed_ways and Baseline().outputs(TaskShape(ways=7)) is None
    assert start(Baseline(), MLP(), PROBLEM, seed=0)[1].keys() == start(Baseline(), MLP(), PROBLEM, seed=1)[1].keys()


def test_the_joint_head_has_a_row_a_class() -> None:
    meta = bench()[1]
    assert meta["joint:weight"].shape == (CLASSES, 6) and not meta["joint:bias"].any()
    with pytest.raises(InputError, match="classifier over all meta-train classes, but their number is 0"):
        start(Baseline(), MLP(), TaskShape((4,), 3), seed=0)


def test_regression_trains_on_all_examples_at_once(make_episode: MakeEpisode) -> None:
    context, meta = bench(REGRESSION)
    episode = regression_episode(make_episode)
    outcome = Baseline().loss(meta, episode, context)
    output = context.network(torch.cat([episode.support.x, episode.query.x]))
    expected = nn.functional.mse_loss(output, torch.cat([episode.support.y, episode.query.y]))
    assert not any(name.startswith("joint:") for name in meta)
    torch.testing.assert_close(outcome.loss, expected)
    torch.testing.assert_close(outcome.score, expected.detach())


@pytest.mark.parametrize("batched", [False, True])
def test_regression_fine_tunes_every_weight_as_torch_does(batched: bool, make_episode: MakeEpisode) -> None:
    context, meta = bench(REGRESSION, training=False)
    episode = regression_episode(make_episode)
    algorithm = Baseline(inner_lr=0.1, inner_steps=4, batch_norm="transductive")
    with torch.no_grad():
        outcome = algorithm.outcomes(meta, lead(episode) if batched else episode, replace(context, batched=batched))
    network = context.network
    sgd = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, dampening=0.9, weight_decay=0.001)
    for _ in range(4):
        sgd.zero_grad()
        nn.functional.mse_loss(network(episode.support.x), episode.support.y).backward()
        sgd.step()
    with torch.no_grad():
        expected = nn.functional.mse_loss(network(episode.query.x), episode.query.y)
    torch.testing.assert_close(outcome.loss, expected[None])


def lead(episode: TensorEpisode) -> TensorEpisode:
    support, query = (Examples(side.x[None], side.y[None]) for side in (episode.support, episode.query))
    return TensorEpisode(support, query, episode.seed[None], episode.classes[None])


def test_regression_without_steps_is_the_trained_network(make_episode: MakeEpisode) -> None:
    context, meta = bench(REGRESSION, training=False)
    episode = regression_episode(make_episode)
    adapted = Baseline(batch_norm="transductive").adapt(meta, episode.support, replace(context, inner_steps=0))
    assert adapted.keys() == meta.keys() and all(torch.equal(adapted[name], meta[name]) for name in meta)
    assert not any(value.requires_grad for value in adapted.values())
    output = Baseline(batch_norm="transductive").predict(meta, adapted, episode.query.x, context)
    assert torch.equal(output, context.forward(meta, episode.query.x))


@pytest.mark.parametrize("wrong", [{"inner_lr": -1}, {"inner_steps": -1}, {"momentum": 1}, {"weight_decay": -0.1}])
def test_hyperparameters_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Baseline.parse(wrong, where="baseline")
