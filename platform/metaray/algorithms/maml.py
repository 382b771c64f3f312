"""Model-agnostic meta-learning."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.adapts import EVERYTHING, Adapts, adapting
from metaray.algorithms.families.inner_loop import predict_at, steps_of
from metaray.algorithms.families.inner_lr import InnerLR, rates
from metaray.algorithms.families.inner_optimizers import PLAIN, StepsBy
from metaray.algorithms.families.support_steps import steps_on_support
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples


class MAML(Algorithm):
    """MAML: an initialisation from which a few gradient steps learn a task.

    With support loss L_s and query loss L_q of task i, Finn, Abbeel and Levine ("Model-agnostic meta-learning for fast
    adaptation of deep networks", ICML 2017, arXiv:1703.03400, algorithm 2) minimise

        sum_i L_q(theta_i'),    theta_i' = theta - alpha * grad L_s(theta)

    over theta, the inner step repeated `inner_steps` times. The gradient runs through the inner steps; with
    `second_order=False` the inner gradients count as constants (section 5.2, FOMAML). Where `adapts` names a part of
    theta, the steps are of that part: with the head alone it is `ANIL`, with biases alone a network's biases are what a
    task learns.

    Example:
        >>> MAML(inner_lr=0.4).second_order
        True

    Attributes:
        inner_lr: Inner learning rate alpha: a number, one for each parameter pattern, or a schedule over outer steps.
        inner_steps: Number of gradient steps on the support set.
        second_order: Whether to differentiate through the inner gradients.
        adapts: Patterns of the parameters that inner steps change; the others are meta-learned and stay as they are.
        inner_optimizer: Optimiser of the inner steps.
    """

    kind: ClassVar[str] = "maml"
    gradient_steps: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = False
    left_out_of_json: ClassVar[tuple[str, ...]] = ("adapts", "inner_optimizer")

    inner_lr: InnerLR = 0.01
    inner_steps: int = Field(default=1, ge=0)
    second_order: bool = True
    adapts: Adapts = EVERYTHING
    inner_optimizer: StepsBy = PLAIN

    @property
    def differentiates_twice(self) -> bool:
        """Whether the inner gradients are differentiated again: `second_order`."""
        return self.second_order

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """The network's parameters as meta-parameters.

        Raises:
            InputError: If a pattern of `adapts` fits no parameter.
        """
        meta = super().init(network, task_shape)
        adapting(self.adapts, list(meta), network)
        return meta

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """Adapt the parameters by inner steps, to theta'.

        Under inductive batch norm the statistics of the support set at theta' are returned, too.
        """
        alpha = rates(self.inner_lr, adapting(self.adapts, list(meta), context.network), context.step)
        return steps_on_support(
            meta,
            alpha,
            support,
            context,
            protocol=self.batch_norm,
            optimizer=self.inner_optimizer,
            steps=steps_of(self.inner_steps, context),
            second_order=self.second_order,
            adapts=self.adapts,
        )

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """Predict with the network at theta'."""
        return predict_at(adapted, x, context)
