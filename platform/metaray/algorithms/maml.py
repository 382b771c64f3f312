"""Model-agnostic meta-learning."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.inner_lr import InnerLR, rates
from metaray.episodes.tensors import Examples

STATISTICS = "statistics:"


class MAML(Algorithm):
    """MAML: an initialisation from which a few gradient steps learn a task.

    With support loss L_s and query loss L_q of task i, Finn, Abbeel and Levine ("Model-agnostic meta-learning for fast
    adaptation of deep networks", ICML 2017, arXiv:1703.03400, algorithm 2) minimise

        sum_i L_q(theta_i'),    theta_i' = theta - alpha * grad L_s(theta)

    over theta, the inner step repeated `inner_steps` times. The gradient runs through the inner steps; with
    `second_order=False` the inner gradients count as constants (section 5.2, FOMAML).

    Example:
        >>> MAML(inner_lr=0.4).second_order
        True

    Attributes:
        inner_lr: alpha; a number, one a parameter pattern, or a schedule over outer steps.
        inner_steps: gradient steps on the support set.
        second_order: differentiate through the inner gradients.
    """

    kind: ClassVar[str] = "maml"
    gradient_steps: ClassVar[bool] = True

    inner_lr: InnerLR = 0.01
    inner_steps: int = Field(default=1, ge=0)
    second_order: bool = True

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """theta' of one task, and under inductive batch norm the support set's statistics at theta'."""
        alpha = rates(self.inner_lr, list(meta), context.step)
        differentiable = self.second_order and context.training

        def support_loss(parameters: Tensors) -> Tensor:
            logits = context.forward(parameters, support.x).to(context.loss_dtype)
            return nn.functional.cross_entropy(logits, support.y)

        theta = meta
        for _ in range(self.inner_steps if context.inner_steps is None else context.inner_steps):
            gradient = context.gradient(support_loss, theta, differentiable=differentiable)
            theta = {name: value - alpha[name] * gradient[name] for name, value in theta.items()}
            if not context.training:
                theta = {name: value.detach() for name, value in theta.items()}
        if self.batch_norm == "transductive":
            return theta
        _, statistics = context.forward_recording(theta, support.x)
        return {**theta, **{STATISTICS + name: value for name, value in statistics.items()}}

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """The network at theta'."""
        theta = {name: value for name, value in adapted.items() if not name.startswith(STATISTICS)}
        statistics = {
            name.removeprefix(STATISTICS): value for name, value in adapted.items() if name.startswith(STATISTICS)
        }
        return context.forward(theta, x, statistics)
