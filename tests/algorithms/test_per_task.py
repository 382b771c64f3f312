"""What learns each task alone, against closed forms by hand and another solver."""

import numpy as np
import pytest
import torch

from metaray.algorithms.context import Context
from metaray.algorithms.families.per_task import PerTask
from metaray.algorithms.per_task import BASELINES, LOGISTIC_PENALTY, PENALTIES, Logistic, Ridge, SupportMean
from metaray.data.preprocessing import CategoryColumn, NumberColumn, TablePreprocessing
from metaray.episodes.tensors import Examples
from metaray.models.comparison import Comparison
from metaray.tasks import Binary, Regression, TaskKind

TABLE = TablePreprocessing(numbers=tuple(NumberColumn(name=name) for name in "abc"))
ROWS, QUERIES = 7, 4


def context_of(task: TaskKind, table: TablePreprocessing = TABLE) -> Context:
    return Context(network=Comparison(table), ways=task.labels(1), task=task)


def predicted(
    algorithm: PerTask, x: torch.Tensor, y: torch.Tensor, query: torch.Tensor, task: TaskKind
) -> torch.Tensor:
    context = context_of(task)
    return algorithm.predict({}, algorithm.adapt({}, Examples(x, y), context), query, context)


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, query = torch.randn(ROWS, 3, generator=generator), torch.randn(QUERIES, 3, generator=generator)
    return x, x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 3 + 0.3 * torch.randn(ROWS, 1, generator=generator), query


def test_the_mean(data: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    x, y, query = data
    found = predicted(SupportMean(), x, y, query, Regression())
    torch.testing.assert_close(found, y.mean().expand(QUERIES, 1))


def ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """By the normal equations, with an intercept that is not penalised."""
    design = np.column_stack([x, np.ones(len(x))])
    penalties = np.diag([penalty] * x.shape[1] + [0.0])
    solution = np.linalg.solve(design.T @ design + penalties, design.T @ y)
    return solution[:-1], float(solution[-1])


def test_ridge_leaves_one_out(data: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    x, y, query = (part.double().numpy() for part in data)
    errors = []
    for penalty in PENALTIES:
        kept = [np.arange(ROWS) != i for i in range(ROWS)]
        fits = [ridge(x[rows], y[rows, 0], penalty) for rows in kept]
        errors.append(sum((x[i] @ w + b - y[i, 0]) ** 2 for i, (w, b) in enumerate(fits)))
    weights, intercept = ridge(x, y[:, 0], PENALTIES[int(np.argmin(errors))])
    found = predicted(Ridge(), *data[:2], data[2], Regression())
    np.testing.assert_allclose(found[:, 0].numpy(), query @ weights + intercept, rtol=1e-5)


def test_ridge_of_noise_is_nearly_the_mean() -> None:
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(8, 3, generator=generator), torch.tensor([1.0, -1] * 4)[:, None] + 5
    found = predicted(Ridge(), torch.cat([x, x]), torch.cat([y, 10 - y]), x, Regression())
    torch.testing.assert_close(found, torch.full((8, 1), 5.0), atol=1e-2, rtol=0)


def test_logistic_regression_is_at_its_minimum() -> None:
    """The gradient of sum log(1 + exp(-s m)) + penalty |w|^2 / 2 is zero, intercept penalised likewise."""
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(10, 3, generator=generator), torch.arange(10) // 5
    adapted = Logistic().adapt({}, Examples(x, y), context_of(Binary()))
    weights, intercept = (adapted[name].clone().requires_grad_() for name in ("weights", "intercept"))
    margin = (x.double() - adapted["middle"]) @ weights + intercept
    loss = torch.nn.functional.binary_cross_entropy_with_logits(margin, y.double(), reduction="sum")
    loss = loss + LOGISTIC_PENALTY / 2 * (weights.square().sum() + intercept.square())
    for gradient in torch.autograd.grad(loss, (weights, intercept)):
        assert float(gradient.abs().max()) < 1e-8
    output = predicted(Logistic(), x, y, x, Binary())
    assert output.shape == (10, 2) and float(Binary().judged(output, y)) > 0.8


@pytest.mark.parametrize("name", ["support_mean", "ridge", "logistic"])
def test_they_can_be_mapped_over(name: str) -> None:
    algorithm, task = BASELINES[name], Binary() if name == "logistic" else Regression()
    context = context_of(task)
    x, query = torch.randn(2, 6, 3), torch.randn(2, 4, 3)
    y = (torch.arange(6) % 2).expand(2, -1) if name == "logistic" else torch.randn(2, 6, 1)
    alone = [predicted(algorithm, x[i], y[i], query[i], task) for i in range(2)]
    run = lambda one, of, other: algorithm.predict({}, algorithm.adapt({}, Examples(one, of), context), other, context)  # noqa: E731
    torch.testing.assert_close(torch.vmap(run)(x, y, query), torch.stack(alone))
    assert BASELINES[name].kind == name and not algorithm.init(context.network, None)  # type: ignore[arg-type]


def test_categories_count() -> None:
    table = TablePreprocessing(categories=(CategoryColumn(name="c", categories=("a", "b")),))
    x = table.normalize(torch.tensor([[1.0], [2.0]] * 4))
    y = torch.tensor([0.0, 4.0] * 4)[:, None]
    context = context_of(Regression(), table)
    found = Ridge().predict({}, Ridge().adapt({}, Examples(x, y), context), x, context)
    torch.testing.assert_close(found, y, atol=0.3, rtol=0)
