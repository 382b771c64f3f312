"""Ridge regression in closed form."""

import pytest
import torch

from metaray.algorithms.families.ridge import ridge_weights


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("n", "size"), [(4, 7), (7, 4), (1, 1)])
@pytest.mark.parametrize("regularizer", [1e-3, 1.0, 50.0])
def test_equals_the_primal_form(n: int, size: int, regularizer: float) -> None:
    x, y = random(n, size), random(n, 3, seed=1)
    primal = torch.linalg.inv(x.T @ x + regularizer * torch.eye(size)) @ x.T @ y
    torch.testing.assert_close(ridge_weights(x, y, regularizer), primal, rtol=1e-9, atol=1e-9)


def test_minimises_squared_error_and_length() -> None:
    x, y = random(5, 3), random(5, 2, seed=1)
    weights = ridge_weights(x, y, 0.7).requires_grad_()
    objective = (x @ weights - y).square().sum() + 0.7 * weights.square().sum()
    (gradient,) = torch.autograd.grad(objective, weights)
    assert float(gradient.abs().max()) < 1e-12


def test_one_example_by_hand() -> None:
    weights = ridge_weights(torch.tensor([[3.0]]), torch.tensor([[2.0]]), 1.0)
    torch.testing.assert_close(weights, torch.tensor([[3 * 2 / (9 + 1)]]))


def test_equal_examples_share_their_targets() -> None:
    twice = ridge_weights(torch.ones(2, 1), torch.tensor([[0.0], [1.0]]), 1e-6)
    torch.testing.assert_close(twice, torch.tensor([[0.5]]), rtol=1e-3, atol=1e-3)


def test_more_examples_than_features_and_hardly_any_regularizer_in_float32() -> None:
    x, truth = random(50, 3), random(3, 2, seed=1)
    found = ridge_weights(x.float(), (x @ truth).float(), 1e-6)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, truth.float(), rtol=1e-5, atol=1e-5)


def test_gradients() -> None:
    regularizer = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    arguments = (random(3, 4).requires_grad_(), random(3, 2, seed=1).requires_grad_(), regularizer)
    assert torch.autograd.gradcheck(ridge_weights, arguments)


def test_is_mapped_over() -> None:
    x, y = random(6, 3, 4), random(6, 3, 2, seed=1)
    mapped = torch.vmap(ridge_weights, in_dims=(0, 0, None))(x, y, 2.0)
    torch.testing.assert_close(mapped, torch.stack([ridge_weights(x[i], y[i], 2.0) for i in range(6)]))


def test_what_is_not_finite_does_not_raise() -> None:
    assert not ridge_weights(torch.full((2, 2), torch.nan), torch.ones(2, 1), 1.0).isfinite().any()
