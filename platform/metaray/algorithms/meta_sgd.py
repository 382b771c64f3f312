"""Meta-SGD: learned inner learning rates."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.inner_loop import descend, predict_at, steps_of, support_loss, with_statistics
from metaray.algorithms.families.inner_lr import InnerLR, rates
from metaray.algorithms.families.prefixes import join, part, without
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples

RATE = "inner_lr:"


class MetaSGD(Algorithm):
    """Meta-SGD: the outer loop learns the initialisation and an inner learning rate for each single weight.

    Li, Zhou, Chen and Li ("Meta-SGD: learning to learn quickly for few-shot learning", 2017, arXiv:1707.09835,
    equation 2 and algorithm 1):

        theta' = theta - alpha o grad L_s(theta),    min over theta and alpha of sum_i L_q(theta_i'),

    with alpha of theta's shape and o the element-wise product; alpha may become negative.

    Departures: alpha starts at `inner_lr` everywhere, where the paper draws it at random; more than one inner step
    (`inner_steps`) uses the same alpha again.

    Attributes:
        inner_lr: where alpha starts; a number, or one a parameter pattern (of a schedule, the value at step 0).
        inner_steps: gradient steps on the support set.
    """

    kind: ClassVar[str] = "meta_sgd"
    gradient_steps: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = False

    inner_lr: InnerLR = 0.01
    inner_steps: int = Field(default=1, ge=0)

    @property
    def differentiates_twice(self) -> bool:
        """Always: the inner gradients are differentiated again."""
        return True

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """theta, and alpha under the same names with a prefix."""
        theta = super().init(network, task_shape)
        start = rates(self.inner_lr, list(theta), 0)
        return join(theta, {RATE: {name: torch.full_like(value, start[name]) for name, value in theta.items()}})

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """theta' of one task."""
        theta, alpha = without(meta, RATE), part(meta, RATE)
        loss = support_loss(support, context, second_order=True)
        for _ in range(steps_of(self.inner_steps, context)):
            theta = descend(loss, theta, alpha, context, second_order=True)
        return with_statistics(theta, support, context, self.batch_norm)

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """The network at theta'."""
        return predict_at(adapted, x, context)
