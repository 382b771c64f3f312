"""The outer optimiser: its description, its learning rate at a step, and one update."""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from metaray.algorithms.context import Tensors
from metaray.config import Config

Beta = Annotated[float, Field(ge=0, lt=1)]


class Optimizer(Config):
    """How the outer loop steps the meta-parameters.

    Attributes:
        kind: "adam" (Kingma and Ba 2015), "adamw" (Loshchilov and Hutter 2019) or "sgd".
        outer_lr: learning rate at its highest.
        schedule: "constant"; "cosine" to `final_lr_fraction * outer_lr`, which a step after the last would have; "step"
            multiplies by `decay` every `decay_every` steps.
        warmup_steps: of linear warm-up from zero; the step after them has the full rate.
        final_lr_fraction: where "cosine" ends.
        decay: factor of "step".
        decay_every: period of "step", in outer steps.
        weight_decay: L2 penalty for adam and sgd, decoupled for adamw.
        momentum: of sgd.
        betas: of adam and adamw.
        clip_norm: the outer gradient's Euclidean norm is clipped to this; None leaves it alone.
    """

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    outer_lr: float = Field(default=1e-3, gt=0)
    schedule: Literal["constant", "cosine", "step"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    final_lr_fraction: float = Field(default=0.0, ge=0, le=1)
    decay: float = Field(default=0.5, gt=0, le=1)
    decay_every: int = Field(default=2000, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    clip_norm: float | None = Field(default=None, gt=0)

    def lr_at(self, step: int, num_steps: int) -> float:
        """The outer learning rate of step `step` (0 .. num_steps-1): a pure function, so resuming is exact."""
        if step < self.warmup_steps:
            return self.outer_lr * (step + 1) / self.warmup_steps
        if self.schedule == "cosine":
            progress = (step - self.warmup_steps) / max(1, num_steps - self.warmup_steps)
            floor = self.final_lr_fraction
            return self.outer_lr * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
        if self.schedule == "step":
            return float(self.outer_lr * self.decay ** (step // self.decay_every))
        return self.outer_lr

    def build(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        """A torch optimiser over leaves. `foreach` is off: one kernel a tensor, in a fixed order."""
        if self.kind == "sgd":
            return torch.optim.SGD(
                parameters, self.outer_lr, momentum=self.momentum, weight_decay=self.weight_decay, foreach=False
            )
        cls = torch.optim.Adam if self.kind == "adam" else torch.optim.AdamW
        return cls(parameters, self.outer_lr, betas=self.betas, weight_decay=self.weight_decay, foreach=False)


def global_norm(gradient: Tensors) -> float:
    """Euclidean norm over all tensors together."""
    if not gradient:
        return 0.0
    squares = torch.stack([g.detach().to(torch.float64).square().sum() for g in gradient.values()])
    return math.sqrt(float(squares.sum()))


def clip_(gradient: Tensors, norm: float, max_norm: float) -> None:
    """Scale `gradient`, whose global norm is `norm`, in place so that it is at most `max_norm`."""
    if norm > max_norm:
        for g in gradient.values():
            g.mul_(max_norm / norm)
