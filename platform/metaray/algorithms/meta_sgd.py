"""Meta-SGD: learned inner learning rates."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.adapts import EVERYTHING, Adapts, adapting
from metaray.algorithms.families.inner_loop import predict_at, steps_of
from metaray.algorithms.families.inner_lr import InnerLR, rates
from metaray.algorithms.families.inner_optimizers import PLAIN, StepsBy
from metaray.algorithms.families.prefixes import join, part, without
from metaray.algorithms.families.support_steps import steps_on_support
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
        inner_lr: Initial value of alpha: a number, or one for each parameter pattern (of a schedule, its value at step
            0).
        inner_steps: Number of gradient steps on the support set.
        adapts: Patterns of the parameters that inner steps change, and that have rates in alpha; the others are
            meta-learned and stay as they are.
        inner_optimizer: Optimiser of the inner steps; alpha multiplies its directions.
    """

    kind: ClassVar[str] = "meta_sgd"
    gradient_steps: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = False
    left_out_of_json: ClassVar[tuple[str, ...]] = ("adapts", "inner_optimizer")

    inner_lr: InnerLR = 0.01
    inner_steps: int = Field(default=1, ge=0)
    adapts: Adapts = EVERYTHING
    inner_optimizer: StepsBy = PLAIN

    @property
    def differentiates_twice(self) -> bool:
        """Always true: the inner gradients are differentiated again."""
        return True

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """The parameters theta, and alpha under the same names with a prefix.

        Raises:
            InputError: If a pattern of `adapts` fits no parameter.
        """
        theta = super().init(network, task_shape)
        start = rates(self.inner_lr, adapting(self.adapts, list(theta), network), 0)
        return join(theta, {RATE: {name: torch.full_like(theta[name], rate) for name, rate in start.items()}})

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """Adapt the parameters by inner steps, to theta'."""
        theta, alpha = without(meta, RATE), part(meta, RATE)
        return steps_on_support(
            theta,
            alpha,
            support,
            context,
            protocol=self.batch_norm,
            optimizer=self.inner_optimizer,
            steps=steps_of(self.inner_steps, context),
            second_order=True,
            adapts=self.adapts,
        )

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """Predict with the network at theta'."""
        return predict_at(adapted, x, context)
