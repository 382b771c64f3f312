"""Model-agnostic meta-learning."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.inner_loop import descend, predict_at, steps_of, support_loss, with_statistics
from metaray.algorithms.families.inner_lr import InnerLR, rates
from metaray.episodes.tensors import Examples


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
    needs_classes: ClassVar[bool] = False

    inner_lr: InnerLR = 0.01
    inner_steps: int = Field(default=1, ge=0)
    second_order: bool = True

    @property
    def differentiates_twice(self) -> bool:
        """Whether it is of second order."""
        return self.second_order

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """theta' of one task, and under inductive batch norm the support set's statistics at theta'."""
        alpha = rates(self.inner_lr, list(meta), context.step)
        loss, theta = support_loss(support, context, second_order=self.second_order), meta
        for _ in range(steps_of(self.inner_steps, context)):
            theta = descend(loss, theta, alpha, context, second_order=self.second_order)
        return with_statistics(theta, support, context, self.batch_norm)

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """The network at theta'."""
        return predict_at(adapted, x, context)
