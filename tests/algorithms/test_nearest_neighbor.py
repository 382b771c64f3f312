"""The baseline that needs no training."""

import torch
from torch import nn

from metaray.algorithms import NearestNeighbor
from metaray.algorithms.context import Context
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples
from metaray.tasks import Regression

SUPPORT = Examples(torch.tensor([[[0.0, 0.0]], [[4.0, 0.0]], [[0.0, 3.0]]]), torch.tensor([1, 0, 1]))


def predict(x: torch.Tensor, ways: int = 2) -> torch.Tensor:
    algorithm, context = NearestNeighbor(), Context(network=nn.Identity(), ways=ways)
    return algorithm.predict({}, algorithm.adapt({}, SUPPORT, context), x, context)


def test_minus_the_distance_to_the_nearest_of_each_class() -> None:
    torch.testing.assert_close(predict(torch.tensor([[[4.0, 3.0]]])), torch.tensor([[-3.0, -4.0]]))
    torch.testing.assert_close(predict(SUPPORT.x).argmax(1), SUPPORT.y)


def test_a_class_without_examples_is_never_chosen() -> None:
    assert predict(SUPPORT.x, ways=3)[:, 2].tolist() == [-torch.inf] * 3


def test_nothing_to_train() -> None:
    assert NearestNeighbor().init(nn.Linear(2, 2), TaskShape()) == {}
    assert NearestNeighbor().outputs(TaskShape(ways=5)) is None


def test_regression_repeats_the_nearest_target() -> None:
    algorithm, context = NearestNeighbor(), Context(network=nn.Identity(), ways=1, task=Regression())
    support = Examples(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[10.0], [20.0], [30.0]]))
    adapted = algorithm.adapt({}, support, context)
    assert algorithm.predict({}, adapted, torch.tensor([[4.0], [0.4], [0.6]]), context).tolist() == [
        [30.0],
        [10.0],
        [20.0],
    ]
