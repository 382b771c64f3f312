"""iMAML against closed forms."""

import pytest
import torch

from metaray.algorithms import IMAML
from metaray.algorithms.context import Tensors
from metaray.algorithms.imaml import conjugate_gradient
from tests.algorithms.quadratic import at, episode, of_square


@pytest.mark.parametrize("proximity", [0.5, 2.0, 10.0])
def test_meta_gradient_of_a_square(proximity: float) -> None:
    # phi* = lambda w / (lambda + 2), and H = 2.
    found = of_square(IMAML(inner_lr=0.05, inner_steps=400, proximity=proximity, cg_steps=1), 1.7)
    shrink = proximity / (proximity + 2)
    assert float(found.gradient["w"]) == pytest.approx(2 * 1.7 * shrink**2, rel=1e-9)
    assert float(found.outcome.loss) == pytest.approx((1.7 * shrink) ** 2, rel=1e-9)


def test_one_inner_step_of_a_square() -> None:
    # The first step starts at theta, where the proximal term has no gradient.
    algorithm = IMAML(inner_lr=0.1, inner_steps=1)
    meta, context = at(algorithm, 1.7)
    assert float(algorithm.adapt(meta, episode().support, context)["w"]) == pytest.approx(1.7 * (1 - 0.2))
    two = IMAML(inner_lr=0.1, inner_steps=2, proximity=3.0).adapt(meta, episode().support, context)["w"]
    once = 1.7 * 0.8
    assert float(two) == pytest.approx(once - 0.1 * (2 * once + 3.0 * (once - 1.7)))


def system(eigenvalues: list[float]) -> tuple[torch.Tensor, Tensors]:
    generator = torch.Generator().manual_seed(0)
    size = len(eigenvalues)
    q, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))
    b = torch.randn(size, dtype=torch.float64, generator=generator)
    return q @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ q.T, {"a": b[:2], "b": b[2:]}


def solve(matrix: torch.Tensor, b: Tensors, steps: int) -> torch.Tensor:
    def product(vector: Tensors) -> Tensors:
        image = matrix @ torch.cat([vector["a"], vector["b"]])
        return {"a": image[:2], "b": image[2:]}

    x = conjugate_gradient(product, b, steps)
    return torch.cat([x["a"], x["b"]])


def test_conjugate_gradient_solves_in_as_many_steps_as_unknowns() -> None:
    matrix, b = system([1.0, 2.0, 5.0, 9.0])
    exact = torch.linalg.solve(matrix, torch.cat([b["a"], b["b"]]))
    torch.testing.assert_close(solve(matrix, b, 4), exact, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(solve(matrix, b, 40), exact, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(solve(matrix, b, 2), exact, rtol=1e-3)


def test_conjugate_gradient_stops_at_negative_curvature() -> None:
    matrix, b = system([-1.0, -2.0, -3.0, -4.0])
    assert torch.equal(solve(matrix, b, 5), torch.cat([b["a"], b["b"]]))
    matrix, b = system([1.0, 2.0, 3.0, -0.1])
    assert solve(matrix, b, 50).isfinite().all()


def test_nothing_to_solve() -> None:
    matrix, b = system([1.0, 2.0])
    assert torch.equal(solve(matrix, {name: 0 * value for name, value in b.items()}, 3), torch.zeros(2).double())
