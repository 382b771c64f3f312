"""A differentiable solver of small quadratic programs."""

from typing import NamedTuple

import torch
from torch import Tensor

SHORT_OF_BOUNDARY = 0.99
GAP_FLOOR = 1e-14


class _Point(NamedTuple):
    """An iterate: a, the multipliers nu of the equations and z of the bounds, and the slack s = upper - a."""

    a: Tensor
    nu: Tensor
    z: Tensor
    s: Tensor

    def moved(self, direction: "_Point", length: Tensor) -> "_Point":
        return _Point(*(value + length * change for value, change in zip(self, direction, strict=True)))


def solve_quadratic_program(quadratic: Tensor, linear: Tensor, upper: Tensor, *, iterations: int) -> Tensor:
    """The rows a_1 .. a_N that solve

        min  sum_m  1/2 a_m^T G a_m + e_m^T a_m    such that    a_m <= h_m for all m,    sum_m a_m = 0

    by a primal-dual interior point method (Mehrotra, "On the implementation of a primal-dual interior point method",
    SIAM J. Optim. 1992), from the start on inside the bounds and on the equations. All in float64, and always so many
    iterations: nothing is decided by the data, so it can be mapped over by `torch.vmap` and never waits for a device.

    The N blocks are coupled by the n equations alone, so that an iteration inverts N + 1 matrices of n x n instead of
    one of Nn x Nn.

    The iterations build no graph. Gradients come from one more Newton step on the KKT conditions, in which the matrix
    of the step is a constant: its derivative is that of the implicit function theorem (Amos and Kolter, "OptNet", ICML
    2017, arXiv:1703.00443, section 3). First derivatives only.

    Args:
        quadratic: Matrix G [n, n], symmetric and positive definite.
        linear: Linear terms e [N, n].
        upper: Upper bounds h [N, n]; their sum over N is positive.
        iterations: Number of iterations; 15 usually leave a duality gap at rounding error.

    Returns:
        The solution a [N, n] in float64.
    """
    g, e, h = (tensor.to(torch.float64) for tensor in (quadratic, linear, upper))
    with torch.no_grad():
        point = _start(g, e, h)
        for _ in range(iterations):
            point = _iterate(g, e, point)
        inverses = _inverses(g, point)
    stationarity = point.a @ g + e + point.nu + point.z
    return point.a + _step(inverses, point, stationarity, point.z * (h - point.a - point.s)).a


def _start(g: Tensor, e: Tensor, h: Tensor) -> _Point:
    """The same slack for all m, and multipliers of the size of the gradient there."""
    s = h.mean(dim=0).expand_as(h)
    a = h - s
    gradient = a @ g + e
    return _Point(a, -gradient.mean(dim=0), gradient.abs().amax().clamp_min(1e-3).expand_as(h), s)


def _iterate(g: Tensor, e: Tensor, point: _Point) -> _Point:
    """A predictor step that aims at the solution, and a corrected one that aims at less of a gap, as far as it went."""
    stationarity = point.a @ g + e + point.nu + point.z
    inverses, gap = _inverses(g, point), (point.s * point.z).mean()
    affine = _step(inverses, point, stationarity, point.s * point.z)
    predicted = point.moved(affine, _length(point, affine))
    centring = ((predicted.s * predicted.z).mean() / gap) ** 3
    target = (centring * gap).clamp_min(GAP_FLOOR)
    step = _step(inverses, point, stationarity, point.s * point.z + affine.s * affine.z - target)
    return point.moved(step, SHORT_OF_BOUNDARY * _length(point, step))


def _inverses(g: Tensor, point: _Point) -> tuple[Tensor, Tensor]:
    """(G + diag(z_m / s_m))^-1 for each m [N, n, n], and the inverse of their sum [n, n]."""
    # Near the solution z / s spans 20 orders of magnitude; scaled to a diagonal of ones, small entries are exact too.
    matrices = g + torch.diag_embed(point.z / point.s)
    scale = matrices.diagonal(dim1=-2, dim2=-1).rsqrt()
    scales = scale[:, :, None] * scale[:, None, :]
    blocks = scales * _inverse(scales * matrices)
    return blocks, _inverse(blocks.sum(dim=0))


def _inverse(matrix: Tensor) -> Tensor:
    # Not `inv`, which waits for the device to raise an error: what is not finite is found by the outer loop.
    inverse: Tensor = torch.linalg.inv_ex(matrix).inverse
    return inverse


def _step(inverses: tuple[Tensor, Tensor], point: _Point, stationarity: Tensor, complementarity: Tensor) -> _Point:
    """Newton's step on the KKT conditions: where it leads, `stationarity` = 0 and s z is less by `complementarity`.

    G da + dz + dnu = -stationarity,    da + ds = 0,    sum_m da_m = 0,    z ds + s dz = -complementarity
    """
    blocks, coupling = inverses
    right = complementarity / point.s - stationarity
    free = (blocks @ right[:, :, None]).squeeze(-1)
    nu = coupling @ free.sum(dim=0)
    a = free - (blocks @ nu[:, None]).squeeze(-1)
    return _Point(a, nu, (point.z * a - complementarity) / point.s, -a)


def _length(point: _Point, step: _Point) -> Tensor:
    """The longest step, at most 1, that leaves z and s positive."""
    limits = [
        torch.where(change < 0, -value / change, torch.inf).amin()
        for value, change in ((point.z, step.z), (point.s, step.s))
    ]
    return torch.minimum(*limits).clamp_max(1)
