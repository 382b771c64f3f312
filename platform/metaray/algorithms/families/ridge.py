"""Ridge regression in closed form."""

import torch
from torch import Tensor


def ridge_weights(x: Tensor, y: Tensor, regularizer: float | Tensor) -> Tensor:
    """W = X^T (X X^T + lambda I)^-1 Y, which minimises ||X W - Y||^2 + lambda ||W||^2.

    By Woodbury's identity it is (X^T X + lambda I)^-1 X^T Y; this form solves a system of n equations instead of E. It
    is solved in float64: where n > E and lambda is small, X X^T + lambda I is next to singular.

    Args:
        x: [n, E]; n is small in few-shot tasks.
        y: [n, outputs].
        regularizer: lambda, positive.

    Returns:
        [E, outputs], of x's dtype.
    """
    wide = x.to(torch.float64)
    kernel = wide @ wide.T + regularizer * torch.eye(len(x), dtype=wide.dtype, device=x.device)
    # Not `solve`, which waits for the device to raise an error: what is not finite is found by the outer loop.
    solution: Tensor = torch.linalg.solve_ex(kernel, y.to(torch.float64)).result
    return (wide.T @ solution).to(x.dtype)
