"""Ridge regression in closed form."""

import torch
from torch import Tensor

from metaray.algorithms.context import Tensors
from metaray.algorithms.growth import ROWS, SUM, joined

X, Y, COUNT = ROWS + "x", ROWS + "y", SUM + "count"


def ridge_weights(x: Tensor, y: Tensor, regularizer: float | Tensor) -> Tensor:
    """W = X^T (X X^T + lambda I)^-1 Y, which minimises ||X W - Y||^2 + lambda ||W||^2.

    By Woodbury's identity it is (X^T X + lambda I)^-1 X^T Y; this form solves a system of n equations instead of E. It
    is solved in float64: where n > E and lambda is small, X X^T + lambda I is next to singular.

    Args:
        x: Inputs [n, E]; n is small in few-shot tasks.
        y: Targets [n, outputs].
        regularizer: Strength lambda of the regularisation, positive.

    Returns:
        The weights W [E, outputs], of x's dtype.
    """
    wide = x.to(torch.float64)
    kernel = wide @ wide.T + regularizer * torch.eye(len(x), dtype=wide.dtype, device=x.device)
    # Not `solve`, which waits for the device to raise an error: what is not finite is found by the outer loop.
    solution: Tensor = torch.linalg.solve_ex(kernel, y.to(torch.float64)).result
    return (wide.T @ solution).to(x.dtype)


def ridge_summary(x: Tensor, y: Tensor) -> Tensors:
    """A summary of a support set that determines W: X and Y, reduced to at most as many rows as X has columns.

    With X = Q R, X^T X = R^T R and X^T Y = R^T (Q^T Y): R and Q^T Y lead to the same W as X and Y do.

    Args:
        x: Inputs [n, E].
        y: Targets [n, outputs].

    Returns:
        Rows [m, E] and [m, outputs] in float64, m = min(n, E), and n.
    """
    count = torch.tensor(float(len(x)), dtype=torch.float64, device=x.device)
    return {**_reduced(x.to(torch.float64), y.to(torch.float64)), COUNT: count}


def ridge_joined(before: Tensors, further: Tensors) -> Tensors:
    """Combine two summaries; outputs of classes that are absent from the first one are 0 there."""
    more = further[Y].shape[1] - before[Y].shape[1]
    before = {**before, Y: torch.nn.functional.pad(before[Y], (0, more))}
    both = joined(before, further)
    return {**both, **_reduced(both[X], both[Y])}


def _reduced(x: Tensor, y: Tensor) -> Tensors:
    if len(x) <= x.shape[1]:
        return {X: x, Y: y}
    q, r = torch.linalg.qr(x)
    return {X: r, Y: q.T @ y}
