"""How a described optimiser steps: building it over meta-parameters, clipping, one update."""

import math

import torch
from torch import Tensor

from metaray.errors import InputError
from metaray.optimizers.groups import divided
from metaray.optimizers.outer_optimizer import OuterOptimizer

FULL_RATE = "outer_lr"
"""Key of a parameter group that holds its peak learning rate."""


def build_optimizer(optimizer: OuterOptimizer, meta: dict[str, Tensor]) -> torch.optim.Optimizer:
    """Build the torch optimiser over the meta-parameters, leaf tensors by name.

    Raises:
        InputError: If a pattern matches no parameter, or an optimiser of the user's own cannot be built.
    """
    groups = []
    for group, names in divided(optimizer.groups, meta):
        rate = optimizer.outer_lr if group.outer_lr is None else group.outer_lr
        decay = optimizer.weight_decay if group.weight_decay is None else group.weight_decay
        params = [meta[name] for name in names]
        groups.append({"params": params, "lr": rate, "weight_decay": decay, FULL_RATE: rate})
    decays = any(group["weight_decay"] for group in groups)
    built = optimizer.build(groups)
    said = f"optimizer {name_of(optimizer)}"
    if not isinstance(built, torch.optim.Optimizer):
        raise InputError(f"{said} is {type(built).__name__}, not a torch.optim.Optimizer")
    held = [tensor for group in built.param_groups for tensor in group["params"]]
    if sorted(map(id, held)) != sorted(map(id, meta.values())) or any(FULL_RATE not in g for g in built.param_groups):
        raise InputError(f"{said} must step the parameter groups that it is given, and nothing else")
    if decays and "weight_decay" not in built.defaults:
        raise InputError(f"{said} has no weight decay: leave optimizer.weight_decay at 0")
    return built


def name_of(optimizer: OuterOptimizer) -> str:
    """Name of an optimiser for users: its import path, or its kind."""
    cls, path = type(optimizer), getattr(optimizer, "path", None)
    own = f"{cls.__module__}:{cls.__qualname__}"
    return str(path) if path is not None else optimizer.kind if cls.__module__.startswith("metaray.") else own


def update(
    optimizer: OuterOptimizer,
    built: torch.optim.Optimizer,
    meta: dict[str, Tensor],
    gradient: dict[str, Tensor],
    *,
    step: int,
    num_steps: int,
) -> None:
    """Take one outer step: update the meta-parameters in place.

    Args:
        optimizer: Description of the optimiser.
        built: Torch optimiser that was built over `meta`.
        meta: Meta-parameters, leaf tensors by name.
        gradient: Gradient of each meta-parameter, by name, reduced and clipped.
        step: Number of the outer step.
        num_steps: Number of outer steps of the run.
    """
    for group in built.param_groups:
        group["lr"] = optimizer.lr_at(step, num_steps, group[FULL_RATE])
    for name, tensor in meta.items():
        tensor.grad = gradient[name]
    built.step()
    built.zero_grad()


def global_norm(gradient: dict[str, Tensor]) -> Tensor:
    """Euclidean norm over all tensors together: a float64 scalar on their device."""
    if not gradient:
        return torch.zeros((), dtype=torch.float64)
    squares = torch.stack([g.detach().to(torch.float64).square().sum() for g in gradient.values()])
    total = squares.sum()
    if total.device.type == "cpu":  # where torch's root is not always the nearest number
        return torch.tensor(math.sqrt(float(total)), dtype=torch.float64)
    return total.sqrt()


def clip_(gradient: dict[str, Tensor], norm: Tensor | float, max_norm: float) -> None:
    """Scale `gradient` in place so that its global norm is at most `max_norm`.

    Args:
        gradient: Gradient of each parameter, by name.
        norm: Global norm of the gradient; if it is a tensor, the device is not waited for.
        max_norm: Largest global norm.
    """
    if isinstance(norm, Tensor):
        factor = torch.where(norm > max_norm, max_norm / norm, 1.0)
        for g in gradient.values():
            g.mul_(factor)
    elif norm > max_norm:
        for g in gradient.values():
            g.mul_(max_norm / norm)
