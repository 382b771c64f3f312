"""The solver of quadratic programs: optimality, a reference, gradients, degenerate problems."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from metaray.algorithms.families.quadratic_program import solve_quadratic_program


class Program(NamedTuple):
    quadratic: Tensor
    linear: Tensor
    upper: Tensor


def svm(
    ways: int = 5,
    shots: int = 3,
    size: int = 8,
    *,
    c: float = 0.1,
    ridge: float = 1.0,
    scale: float = 1.0,
    seed: int = 0,
) -> Program:
    """The dual of Crammer and Singer's machine for random examples."""
    x = scale * torch.randn(ways * shots, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    own = torch.eye(ways, dtype=torch.float64).repeat_interleave(shots, dim=1)
    return Program(x @ x.T + ridge * torch.eye(len(x), dtype=x.dtype), -own, c * own)


def anything(seed: int) -> Program:
    """Not of that form: any bounds with room between them, any linear term."""
    generator = torch.Generator().manual_seed(seed)
    x, e, h = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((6, 6), (4, 6), (4, 6)))
    return Program(x @ x.T + 0.1 * torch.eye(6), e, h - h.mean(dim=0) + 0.5)


PROGRAMS: dict[str, Program] = {
    "5 ways": svm(),
    "1 shot": svm(shots=1),
    "2 ways, 1 shot": svm(2, 1),
    "20 ways": svm(20, 5, 64),
    "large embedding": svm(size=1600),
    "wide apart": svm(scale=30.0),
    "close together": svm(scale=1e-3),
    "3 ways": svm(3, 2),
    "C large": svm(3, 3, 3, c=1e3),
    "C small": svm(c=1e-4),
    "nearly singular": svm(size=3, ridge=1e-4),
    **{f"anything {seed}": anything(seed) for seed in range(5)},
}


def solve(program: Program) -> Tensor:
    return solve_quadratic_program(*program, iterations=20)


def residuals(program: Program, a: Tensor) -> dict[str, float]:
    """Violations of the optimality conditions, of the best multipliers for a given a.

    At the solution G a_m + e_m = -nu - z_m with z >= 0, and z_m = 0 where a_m < h_m: so for each example the gradient
    is the same, its largest value, over all m with slack.
    """
    gradient = a @ program.quadratic + program.linear
    slack = program.upper - a
    z = gradient.amax(dim=0) - gradient
    return {
        "equations": float(a.sum(dim=0).abs().max()),
        "bounds": float((-slack).clamp_min(0).max()),
        "complementarity": float((z * slack.clamp_min(0)).max()),
    }


@pytest.mark.parametrize("name", PROGRAMS)
def test_optimality(name: str) -> None:
    found = residuals(PROGRAMS[name], solve(PROGRAMS[name]).detach())
    assert max(found.values()) < 1e-6, found


@pytest.mark.parametrize("name", ["5 ways", "1 shot", "20 ways", "close together", "C small"])
def test_the_default_of_15_iterations_is_enough_for_svms(name: str) -> None:
    short = solve_quadratic_program(*PROGRAMS[name], iterations=15)
    torch.testing.assert_close(short, solve(PROGRAMS[name]), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["3 ways", "1 shot", "2 ways, 1 shot", "C large", "anything 0", "anything 1"])
def test_against_scipy(name: str) -> None:
    from scipy import optimize

    program = PROGRAMS[name]
    shape = program.upper.shape
    g, e = program.quadratic.numpy(), program.linear.numpy()
    found = optimize.minimize(
        lambda a: 0.5 * (a.reshape(shape) @ g * a.reshape(shape)).sum() + (e * a.reshape(shape)).sum(),
        torch.zeros(shape).numpy().ravel(),
        jac=lambda a: (a.reshape(shape) @ g + e).ravel(),
        method="SLSQP",
        bounds=[(None, bound) for bound in program.upper.flatten().tolist()],
        constraints=[{"type": "eq", "fun": lambda a: a.reshape(shape).sum(axis=0)}],
        options={"maxiter": 1000, "ftol": 1e-14},
    )
    torch.testing.assert_close(solve(program), torch.from_numpy(found.x).view(shape), rtol=1e-4, atol=1e-5)


def test_two_examples_by_hand() -> None:
    # By symmetry a = [[t, -t], [-t, t]], where the objective is 4 t^2 - 2 t: least at t = 1/4, if the bounds allow it.
    g, own = 2 * torch.eye(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    sign = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(solve(Program(g, -own, own)), sign / 4, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(solve(Program(g, -own, 0.1 * own)), sign / 10, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["1 shot", "5 ways", "C small", "anything 0", "anything 1", "anything 2"])
def test_gradients_against_finite_differences(name: str) -> None:
    program = PROGRAMS[name]
    weights = torch.randn(program.upper.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)

    def objective(*inputs: Tensor) -> Tensor:
        g, e, h = inputs
        return (solve(Program((g + g.T) / 2, e, h)) * weights).sum()

    leaves = [tensor.clone().requires_grad_() for tensor in program]
    exact = torch.autograd.grad(objective(*leaves), leaves)
    for i, (leaf, gradient) in enumerate(zip(program, exact, strict=True)):
        for seed in range(3):
            generator = torch.Generator().manual_seed(seed)
            direction = torch.randn(leaf.shape, generator=generator, dtype=torch.float64)
            values = []
            for sign in (1, -1):
                moved = list(program)
                moved[i] = leaf + sign * 1e-7 * direction
                values.append(float(objective(*moved)))
            slope = (values[0] - values[1]) / 2e-7
            assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-6)


def duplicates() -> Program:
    x = torch.ones(6, 2, dtype=torch.float64)
    own = torch.eye(3, dtype=torch.float64).repeat_interleave(2, dim=1)
    return Program(x @ x.T + torch.eye(6), -own, 0.1 * own)


def unequal_classes() -> Program:
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own = torch.eye(3, dtype=torch.float64)[torch.tensor([0, 0, 0, 0, 1, 2])].T
    return Program(x @ x.T + torch.eye(6), -own, 0.1 * own)


def zeros() -> Program:
    own = torch.eye(3, dtype=torch.float64).repeat_interleave(2, dim=1)
    return Program(torch.eye(6, dtype=torch.float64), -own, 0.1 * own)


@pytest.mark.parametrize(
    "make", [duplicates, unequal_classes, zeros, lambda: svm(c=1e6), lambda: svm(c=1e-8), lambda: svm(scale=1e4)]
)
@pytest.mark.parametrize("iterations", [1, 15, 100])
def test_degenerate_problems_stay_finite(make: Callable[[], Program], iterations: int) -> None:
    leaves = [tensor.clone().requires_grad_() for tensor in make()]
    solution = solve_quadratic_program(*leaves, iterations=iterations)
    assert solution.isfinite().all()
    gradients = torch.autograd.grad(solution.square().sum(), leaves)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_duplicates_share_the_price() -> None:
    solution = solve(duplicates())
    torch.testing.assert_close(solution[:, 0], solution[:, 1])
    assert max(residuals(duplicates(), solution).values()) < 1e-6


def test_is_mapped_over_with_gradients() -> None:
    programs = [svm(seed=seed) for seed in range(4)]
    stacked = [torch.stack(tensors).requires_grad_() for tensors in zip(*programs, strict=True)]
    mapped = torch.vmap(lambda *program: solve(Program(*program)))(*stacked)
    singles = torch.stack([solve(Program(*(tensor[i] for tensor in stacked))) for i in range(4)])
    torch.testing.assert_close(mapped, singles, rtol=1e-10, atol=1e-12)
    gradients = (torch.autograd.grad(value.square().sum(), stacked) for value in (mapped, singles))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_always_float64_and_what_is_not_finite_does_not_raise() -> None:
    program = [tensor.float() for tensor in svm()]
    assert solve_quadratic_program(*program, iterations=15).dtype == torch.float64
    program[0] = torch.full_like(program[0], torch.nan)
    assert not solve_quadratic_program(*program, iterations=15).isfinite().any()
