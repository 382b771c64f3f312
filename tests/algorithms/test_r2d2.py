"""R2D2 against the primal form of ridge regression, and its own meta-parameters."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from metaray.algorithms import R2D2
from metaray.algorithms.algorithm import start
from metaray.algorithms.context import CLASSES, Context, Tensors
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.errors import InputError
from metaray.models import MLP
from metaray.models.batch_norm import Protocol
from metaray.tasks import Regression, TaskKind

MakeEpisode = Callable[..., TensorEpisode]

FEATURE = (1, 2, 2)


def bench(algorithm: R2D2, *, task: TaskKind = CLASSES) -> tuple[Tensors, Context]:
    model = MLP(hidden=(6,), batch_norm=task.has_classes)
    network, meta = start(algorithm, model, TaskShape(FEATURE, 3, task), seed=1)
    meta = {name: tensor.double().requires_grad_() for name, tensor in meta.items()}
    return meta, Context(network.double(), ways=task.labels(3), training=True, task=task)


def predict(algorithm: R2D2, meta: Tensors, episode: TensorEpisode, context: Context) -> Tensor:
    return algorithm.predict(meta, algorithm.adapt(meta, episode.support, context), episode.query.x, context)


def regression_episode(make_episode: MakeEpisode, **options: Any) -> TensorEpisode:
    """Targets are affine in the first two features."""
    episode = make_episode(shots=4, queries=3, **options)

    def affine(x: Tensor) -> Examples:
        return Examples(x, x.flatten(-3)[..., :2] * 2 + 5)

    return episode._replace(support=affine(episode.support.x), query=affine(episode.query.x))


def primal(x: Tensor, y: Tensor, queries: Tensor, regularizer: float) -> Tensor:
    x, queries = (torch.cat([side, torch.ones(len(side), 1)], dim=1) for side in (x, queries))
    found: Tensor = queries @ torch.linalg.inv(x.T @ x + regularizer * torch.eye(x.shape[1])) @ x.T @ y
    return found


def test_the_regularizer_may_grow_with_the_examples(make_episode: MakeEpisode) -> None:
    episode = make_episode(shots=3)
    each = R2D2(initial_regularizer=0.3, per_example=True)
    total = R2D2(initial_regularizer=0.3 * 9)
    (meta, context), (other, _) = bench(each), bench(total)
    torch.testing.assert_close(predict(each, meta, episode, context), predict(total, other, episode, context))


def test_against_the_primal_form(make_episode: MakeEpisode) -> None:
    algorithm, episode = (
        R2D2(initial_regularizer=0.3, initial_scale=4.0, batch_norm="transductive"),
        make_episode(shots=3),
    )
    meta, context = bench(algorithm)
    together = context.network(torch.cat([episode.support.x, episode.query.x]))
    labels = torch.eye(3, dtype=torch.float64)[episode.support.y]
    count = len(labels)
    expected = 4 * primal(together[:count], labels, together[count:], 0.3)
    torch.testing.assert_close(predict(algorithm, meta, episode, context), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("protocol", ["transductive", "inductive"])
def test_regression_against_the_primal_form(protocol: Protocol, make_episode: MakeEpisode) -> None:
    algorithm, episode = R2D2(initial_regularizer=0.3, batch_norm=protocol), regression_episode(make_episode)
    meta, context = bench(algorithm, task=Regression(target_size=2))
    support, queries = (context.network(side.x) for side in (episode.support, episode.query))
    expected = primal(support, episode.support.y, queries, 0.3)
    torch.testing.assert_close(predict(algorithm, meta, episode, context), expected, rtol=1e-6, atol=1e-6)


def test_a_linear_embedding_fits_an_affine_function(make_episode: MakeEpisode) -> None:
    algorithm, episode = R2D2(initial_regularizer=1e-6), regression_episode(make_episode, dtype=torch.float32)
    network, meta = start(algorithm, MLP(hidden=()), TaskShape(FEATURE, 1, Regression(target_size=2)), seed=0)
    context = Context(network, ways=1, task=Regression())
    torch.testing.assert_close(predict(algorithm, meta, episode, context), episode.query.y, rtol=1e-4, atol=1e-4)


def test_own_meta_parameters() -> None:
    algorithm = R2D2(initial_regularizer=50.0, initial_scale=2.0)
    _, classes = start(algorithm, MLP(hidden=(6,)), TaskShape(FEATURE, 3), seed=0)
    _, values = start(algorithm, MLP(hidden=(6,)), TaskShape(FEATURE, 1, Regression(target_size=2)), seed=0)
    assert float(classes["ridge:log_regularizer"]) == pytest.approx(math.log(50))
    assert float(classes["ridge:scale"]) == 2
    assert classes.keys() - values.keys() == {"ridge:scale"}


def test_regression_gradients_reach_every_meta_parameter_and_are_right(make_episode: MakeEpisode) -> None:
    algorithm, episode = R2D2(), regression_episode(make_episode)
    meta, context = bench(algorithm, task=Regression(target_size=2))
    found = algorithm.meta_gradient(meta, episode, context)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in meta.items():
        assert float(found.gradient[name].abs().max()) > 1e-6, name
        direction = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        ahead, behind = (
            algorithm.loss({**meta, name: tensor + sign * 1e-6 * direction}, episode, context).loss for sign in (1, -1)
        )
        slope = float((ahead - behind).detach()) / 2e-6
        assert float((found.gradient[name] * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_a_chunk_of_regression_equals_its_episodes(make_episode: MakeEpisode) -> None:
    algorithm, chunk = R2D2(), regression_episode(make_episode, size=3)
    meta, context = bench(algorithm, task=Regression(target_size=2))
    mapped = algorithm.meta_gradient(meta, chunk, replace(context, batched=True))
    singles = []
    for i in range(3):
        support, query = (Examples(side.x[i], side.y[i]) for side in (chunk.support, chunk.query))
        one = TensorEpisode(support, query, chunk.seed[i], chunk.classes[i])
        singles.append(algorithm.meta_gradient(meta, one, context))
    torch.testing.assert_close(mapped.outcome.loss, torch.cat([one.outcome.loss for one in singles]))
    for name, gradient in mapped.gradient.items():
        torch.testing.assert_close(gradient, torch.stack([one.gradient[name] for one in singles]).sum(0))


def test_ways_are_free_and_wrong_fields_are_refused() -> None:
    assert R2D2().outputs(TaskShape(ways=7)) is None
    with pytest.raises(InputError, match=r"initial_regularizer: .*greater than 0 \(got 0\)"):
        R2D2.parse({"initial_regularizer": 0}, where="algorithm")
    with pytest.raises(InputError, match=r"initial_scale: .*greater than 0 \(got -1\)"):
        R2D2.parse({"initial_scale": -1}, where="algorithm")


def test_a_prior_draws_the_weights_towards_itself(make_episode: MakeEpisode) -> None:
    """W minimises |X W - Y|^2 + lambda |W - W_0|^2, and without a prior is that of W_0 = 0."""
    task = Regression(target_size=2)
    algorithm, without = R2D2(prior=True, initial_regularizer=0.7), R2D2(initial_regularizer=0.7)
    (meta, context), (plain, other) = bench(algorithm, task=task), bench(without, task=task)
    assert meta.keys() - plain.keys() == {"ridge:prior"} and meta["ridge:prior"].shape == (7, 2)
    found = regression_episode(make_episode)
    sides = [Examples(side.x.double(), side.y.double()) for side in (found.support, found.query)]
    episode = found._replace(support=sides[0], query=sides[1])
    expected = predict(without, plain, episode, other)
    torch.testing.assert_close(predict(algorithm, meta, episode, context), expected)
    prior = torch.randn(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    meta["ridge:prior"] = prior
    weights = algorithm.adapt(meta, episode.support, context)["weights"].detach().requires_grad_()
    body = {name: tensor for name, tensor in meta.items() if not name.startswith("ridge:")}
    embedded = context.forward(body, episode.support.x).detach()
    x = torch.cat([embedded, torch.ones(len(embedded), 1)], dim=1)
    aim = ((x @ weights - episode.support.y) ** 2).sum() + 0.7 * ((weights - prior.detach()) ** 2).sum()
    (slope,) = torch.autograd.grad(aim, weights)
    assert float(slope.abs().max()) < 1e-5
    (gradient,) = torch.autograd.grad(predict(algorithm, meta, episode, context).sum(), prior)
    assert float(gradient.abs().max()) > 0


def test_labels_of_no_lasting_meaning_have_no_prior() -> None:
    with pytest.raises(InputError, match="prior=True is of outputs that mean the same in all classification tasks"):
        R2D2(prior=True).check_task(CLASSES)
    R2D2(prior=True).check_task(Regression())
