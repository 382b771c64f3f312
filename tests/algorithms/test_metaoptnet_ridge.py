"""MetaOptNet's ridge head against its own quadratic program, minimised slowly."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from metaray.algorithms import MetaOptNetRidge
from metaray.algorithms.algorithm import start
from metaray.algorithms.context import CLASSES, Context, Tensors
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.errors import InputError
from metaray.models import MLP
from metaray.tasks import Regression, TaskKind

MakeEpisode = Callable[..., TensorEpisode]

FEATURE = (1, 2, 2)


def bench(algorithm: MetaOptNetRidge, *, task: TaskKind = CLASSES) -> tuple[Tensors, Context]:
    network, meta = start(algorithm, MLP(hidden=(6,), batch_norm=False), TaskShape(FEATURE, 3, task), seed=1)
    meta = {name: tensor.double().requires_grad_() for name, tensor in meta.items()}
    return meta, Context(network.double(), ways=task.labels(3), training=True, task=task)


def predict(algorithm: MetaOptNetRidge, meta: Tensors, episode: TensorEpisode, context: Context) -> Tensor:
    return algorithm.predict(meta, algorithm.adapt(meta, episode.support, context), episode.query.x, context)


def slowly(x: Tensor, y: Tensor, regularizer: float) -> Tensor:
    """argmin_a 1/2 ||X^T a||^2 + lambda/2 ||a||^2 - 2 y^T a by gradient descent, for each column of y."""
    a = torch.zeros_like(y)
    rate = 1 / float(torch.linalg.matrix_norm(x @ x.T, 2) + regularizer)
    for _ in range(3000):
        a = a - rate * (x @ (x.T @ a) + regularizer * a - 2 * y)
    return a


def test_against_gradient_descent_on_the_dual(make_episode: MakeEpisode) -> None:
    algorithm, episode = MetaOptNetRidge(regularizer=0.5, initial_scale=3.0), make_episode(shots=3)
    meta, context = bench(algorithm)
    support, queries = (context.network(side.x).detach() for side in (episode.support, episode.query))
    labels = torch.eye(3, dtype=torch.float64)[episode.support.y]
    expected = 3 * queries @ support.T @ slowly(support, labels, 0.5)
    torch.testing.assert_close(predict(algorithm, meta, episode, context), expected, rtol=1e-8, atol=1e-8)


def test_regression_fits_with_an_intercept(make_episode: MakeEpisode) -> None:
    algorithm, episode = MetaOptNetRidge(regularizer=1e-6), make_episode(shots=4, dtype=torch.float32)
    support, query = (Examples(side.x, side.x.flatten(1)[:, :2] * 2 + 5) for side in (episode.support, episode.query))
    network, meta = start(algorithm, MLP(hidden=()), TaskShape(FEATURE, 1, Regression(target_size=2)), seed=0)
    context = Context(network, ways=1, task=Regression())
    values = algorithm.predict(meta, algorithm.adapt(meta, support, context), query.x, context)
    torch.testing.assert_close(values, query.y, rtol=1e-4, atol=1e-4)


def test_regression_gradients_reach_every_meta_parameter(make_episode: MakeEpisode) -> None:
    algorithm, episode = MetaOptNetRidge(), make_episode(shots=4)
    meta, context = bench(algorithm, task=Regression())
    support, query = (Examples(side.x, side.x.flatten(1)[:, :1]) for side in (episode.support, episode.query))
    gradient = algorithm.meta_gradient(meta, episode._replace(support=support, query=query), context).gradient
    assert all(float(tensor.abs().max()) > 1e-6 for tensor in gradient.values())


def test_fields() -> None:
    meta, _ = bench(MetaOptNetRidge(initial_scale=7.0))
    assert float(meta["ridge:scale"].detach()) == 7 and MetaOptNetRidge().regularizer == 50
    assert MetaOptNetRidge().outputs(TaskShape(ways=7)) is None
    with pytest.raises(InputError, match=r"regularizer: .*greater than 0 \(got 0\)"):
        MetaOptNetRidge.parse({"regularizer": 0}, where="algorithm")
