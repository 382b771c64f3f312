"""First-order model-agnostic meta-learning."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.inner_loop import descend, predict_at, steps_of, support_loss, with_statistics
from metaray.algorithms.families.inner_lr import InnerLR, rates
from metaray.episodes.tensors import Examples


class FOMAML(Algorithm):
    """FOMAML: MAML whose outer gradient leaves out second derivatives.

    Finn, Abbeel and Levine (ICML 2017, arXiv:1703.03400, section 5.2); analysed by Nichol, Achiam and Schulman ("On
    first-order meta-learning algorithms", 2018, arXiv:1803.02999). With U(theta) the result of the inner
    steps, the outer gradient of a task is

        grad L_q at U(theta)          instead of          U'(theta)^T grad L_q(U(theta)).

    `MAML(second_order=False)` computes the same.

    Attributes:
        inner_lr: alpha; a number, one a parameter pattern, or a schedule over outer steps.
        inner_steps: gradient steps on the support set.
    """

    kind: ClassVar[str] = "fomaml"
    gradient_steps: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = False

    inner_lr: InnerLR = 0.01
    inner_steps: int = Field(default=1, ge=0)

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """theta' of one task: theta minus inner gradients that count as constants."""
        alpha = rates(self.inner_lr, list(meta), context.step)
        loss, theta = support_loss(support, context), meta
        for _ in range(steps_of(self.inner_steps, context)):
            theta = descend(loss, theta, alpha, context, second_order=False)
        return with_statistics(theta, support, context, self.batch_norm)

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """The network at theta'."""
        return predict_at(adapted, x, context)
