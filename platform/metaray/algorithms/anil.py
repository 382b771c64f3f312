"""Almost no inner loop."""

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
from metaray.algorithms.families.last_layer import last_layer
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples


class ANIL(Algorithm):
    """ANIL: MAML that adapts the head alone and reuses the features.

    Raghu, Raghu, Bengio and Vinyals ("Rapid learning or feature reuse?", ICLR 2020, arXiv:1909.09157, section 4): of
    theta = (theta_1 .. theta_l) only the last layer takes inner steps,

        theta_l' = theta_l - alpha * grad_{theta_l} L_s(theta),    theta_1' .. theta_{l-1}' = theta_1 .. theta_{l-1},

    while the outer loop trains all of them. Second derivatives are those of the head alone: a body without any will do.
    Where the head is a module of its own at the end of the network, and nothing is drawn at random, as dropout does,
    the body sees the support set once. `MAML(adapts=("head.*",))` computes the same.

    Attributes:
        inner_lr: Inner learning rate alpha: a number, one for each parameter pattern, or a schedule over outer steps.
        inner_steps: Number of gradient steps on the support set.
        head: Pattern (`fnmatch`) of the names of the head's parameters; `head.*` in metaray's own models.
        adapts: Patterns of the parameters of the head that inner steps change; by default all of the head.
        inner_optimizer: Optimiser of the inner steps.
    """

    kind: ClassVar[str] = "anil"
    gradient_steps: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = False
    left_out_of_json: ClassVar[tuple[str, ...]] = ("adapts", "inner_optimizer")

    inner_lr: InnerLR = 0.01
    inner_steps: int = Field(default=1, ge=0)
    head: str = "head.*"
    adapts: Adapts = EVERYTHING
    inner_optimizer: StepsBy = PLAIN

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """The network's parameters, head and body, as meta-parameters.

        Raises:
            InputError: If `head` fits no parameter or every parameter, or a pattern of `adapts` fits none of the
                head's.
        """
        meta = super().init(network, task_shape)
        self._head(meta, network)
        return meta

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """Adapt the head by inner steps (theta_l'); the parameters of the body are returned unchanged."""
        alpha = rates(self.inner_lr, self._head(meta, context.network), context.step)
        last = last_layer(meta, alpha, support, context, self.batch_norm)
        loss = support_loss(support, context, second_order=True) if last is None else last.loss
        steps, by = steps_of(self.inner_steps, context), self.inner_optimizer
        theta = descended(loss, meta, alpha, context, optimizer=by, steps=steps, second_order=True)
        if last is None:
            return with_statistics(theta, support, context, self.batch_norm)
        return {**theta, **last.statistics}

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """Predict with the unchanged body and the adapted head."""
        return predict_at(adapted, x, context)

    def _head(self, meta: Tensors, network: nn.Module) -> list[str]:
        return adapting(self.adapts, matching(self.head, list(meta), "head", network), network)
