"""First-order model-agnostic meta-learning."""

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


class FOMAML(Algorithm):
    """FOMAML: MAML whose outer gradient leaves out second derivatives.

    Finn, Abbeel and Levine (ICML 2017, arXiv:1703.03400, section 5.2); analysed by Nichol, Achiam and Schulman ("On
    first-order meta-learning algorithms", 2018, arXiv:1803.02999). With U(theta) the result of the inner
    steps, the outer gradient of a task is

        grad L_q at U(theta)          instead of          U'(theta)^T grad L_q(U(theta)).

    `MAML(second_order=False)` computes the same.

    Attributes:
        inner_lr: Inner learning rate alpha: a number, one for each parameter pattern, or a schedule over outer steps.
        inner_steps: Number of gradient steps on the support set.
        adapts: Patterns of the parameters that inner steps change; the others are meta-learned and stay as they are.
        inner_optimizer: Optimiser of the inner steps.
    """

    kind: ClassVar[str] = "fomaml"
    gradient_steps: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = False
    left_out_of_json: ClassVar[tuple[str, ...]] = ("adapts", "inner_optimizer")

    inner_lr: InnerLR = 0.01
    inner_steps: int = Field(default=1, ge=0)
    adapts: Adapts = EVERYTHING
    inner_optimizer: StepsBy = PLAIN

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """The network's parameters as meta-parameters.

        Raises:
            InputError: If a pattern of `adapts` fits no parameter.
        """
        meta = super().init(network, task_shape)
        adapting(self.adapts, list(meta), network)
        return meta

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """Adapt by inner steps to theta'; in differentiation the inner gradients count as constants."""
        alpha = rates(self.inner_lr, adapting(self.adapts, list(meta), context.network), context.step)
        return steps_on_support(
            meta,
            alpha,
            support,
            context,
            protocol=self.batch_norm,
            optimizer=self.inner_optimizer,
            steps=steps_of(self.inner_steps, context),
            second_order=False,
            adapts=self.adapts,
        )

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """Predict with the network at theta'."""
        return predict_at(adapted, x, context)
