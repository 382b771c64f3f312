"""Body only update in the inner loop."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.adapts import EVERYTHING, Adapts, adapting
from metaray.algorithms.families.inner_loop import (
    descended,
    matching,
    predict_at,
    steps_of,
    support_loss,
    with_statistics,
)
from metaray.algorithms.families.inner_lr import InnerLR, rates
from metaray.algorithms.families.inner_optimizers import PLAIN, StepsBy
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples
from metaray.errors import InputError


class BOIL(Algorithm):
    """BOIL: MAML that adapts the body alone, so that representations change and not the classifier.

    Oh, Yoo, Kim and Yun ("BOIL: towards representation change for few-shot learning", ICLR 2021, arXiv:2008.08882,
    section 3): the inner learning rate of the head is zero,

        theta_b' = theta_b - alpha_b * grad_{theta_b} L_s(theta_b, theta_h),    theta_h' = theta_h,

    while the outer loop trains both.

    Attributes:
        inner_lr: Inner learning rate alpha_b: a number, one for each parameter pattern, or a schedule over outer steps.
        inner_steps: Number of gradient steps on the support set.
        head: Pattern (`fnmatch`) of the names of the head's parameters, which inner steps leave alone; `head.*` in
            metaray's own models.
        adapts: Patterns of the parameters of the body that inner steps change; by default all of the body.
        inner_optimizer: Optimiser of the inner steps.
    """

    kind: ClassVar[str] = "boil"
    gradient_steps: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = False
    left_out_of_json: ClassVar[tuple[str, ...]] = ("adapts", "inner_optimizer")

    inner_lr: InnerLR = 0.01
    inner_steps: int = Field(default=1, ge=0)
    head: str = "head.*"
    adapts: Adapts = EVERYTHING
    inner_optimizer: StepsBy = PLAIN

    @property
    def differentiates_twice(self) -> bool:
        """Always true: the inner gradient of the body is differentiated again."""
        return True

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """The network's parameters, head and body, as meta-parameters.

        Raises:
            InputError: If `head` fits no parameter or every parameter, the rest is frozen, or a pattern of `adapts`
                fits none of the body's parameters.
        """
        meta = super().init(network, task_shape)
        if len(matching(self.head, list(meta), "head", network)) == len(meta):
            raise InputError(f"every parameter but the head {self.head!r} is frozen, so that boil could adapt nothing")
        self._body(meta, network)
        return meta

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """Adapt the body by inner steps (theta_b'); the parameters of the head are returned unchanged."""
        alpha = rates(self.inner_lr, self._body(meta, context.network), context.step)
        loss, steps = support_loss(support, context, second_order=True), steps_of(self.inner_steps, context)
        by = self.inner_optimizer
        theta = descended(loss, meta, alpha, context, optimizer=by, steps=steps, second_order=True)
        return with_statistics(theta, support, context, self.batch_norm)

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """Predict with the adapted body and the unchanged head."""
        return predict_at(adapted, x, context)

    def _body(self, meta: Tensors, network: nn.Module) -> list[str]:
        head = matching(self.head, list(meta), "head", network)
        return adapting(self.adapts, [name for name in meta if name not in head], network)
