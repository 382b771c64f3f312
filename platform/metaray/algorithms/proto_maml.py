"""Proto-MAML."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.adapts import EVERYTHING, Adapts, adapting
from metaray.algorithms.families.head import Temperature, class_means, temperature_of
from metaray.algorithms.families.inner_loop import (
    Rates,
    SupportLoss,
    descended,
    split_statistics,
    steps_of,
    with_statistics,
)
from metaray.algorithms.families.inner_lr import InnerLR, rates
from metaray.algorithms.families.inner_optimizers import PLAIN, StepsBy
from metaray.algorithms.families.prefixes import join
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples

HEAD = "prototype:"
WEIGHT, BIAS = HEAD + "weight", HEAD + "bias"


class ProtoMAML(Algorithm):
    """Proto-MAML: MAML whose head is initialised from class means, as in a prototypical network.

    Triantafillou et al. ("Meta-Dataset: a dataset of datasets for learning to learn from few examples", ICLR 2020,
    arXiv:1903.03096): a prototypical network's logits are linear in the embedding f(x), up to a constant, so
    that with the class means c_k of the support the head starts at

        w_k = 2 c_k / T,    b_k = -||c_k||^2 / T

    and is adapted by gradient steps together with the network. The outer gradient runs through the prototypes too. Any
    number of ways is possible, as the head is made for each task. The paper's results are first-order
    (`second_order=False`), and have no T: see `ProtoNet`, of whose logits these are the start.

    Attributes:
        inner_lr: Inner learning rate of the network and of the head (`prototype:weight`, `prototype:bias`): a number,
            one for each parameter pattern, or a schedule over outer steps.
        inner_steps: Number of gradient steps on the support set.
        second_order: Whether to differentiate through the inner gradients.
        temperature: Temperature T: a number, or "size" for the size of the embedding; None is 1.
        adapts: Patterns of the parameters, of head and network, that inner steps change; the network's others are
            meta-learned and stay as they are.
        inner_optimizer: Optimiser of the inner steps.
    """

    kind: ClassVar[str] = "proto_maml"
    gradient_steps: ClassVar[bool] = True
    left_out_of_json: ClassVar[tuple[str, ...]] = ("temperature", "adapts", "inner_optimizer")

    inner_lr: InnerLR = 0.01
    inner_steps: int = Field(default=1, ge=0)
    second_order: bool = True
    temperature: Temperature = None
    adapts: Adapts = EVERYTHING
    inner_optimizer: StepsBy = PLAIN

    @property
    def differentiates_twice(self) -> bool:
        """Whether the inner gradients are differentiated again: `second_order`."""
        return self.second_order

    def outputs(self, task_shape: TaskShape) -> int | None:
        """None, an embedding network, whatever the number of ways."""
        return None

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """The network's parameters as meta-parameters; the head is made for each task.

        Raises:
            InputError: If the network has a parameter with a name of the head's, or a pattern of `adapts` fits no
                parameter.
        """
        meta = join(super().init(network, task_shape), {HEAD: {}})
        adapting(self.adapts, [*meta, WEIGHT, BIAS], network)
        return meta

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """Adapt network and head by inner steps, starting from the prototypes.

        Under inductive batch norm the statistics of the support set there are returned, too.
        """
        alpha = rates(self.inner_lr, adapting(self.adapts, [*meta, WEIGHT, BIAS], context.network), context.step)
        embedded = context.forward(meta, support.x).to(context.loss_dtype)
        centres = class_means(embedded, support.y, context)
        # Copies, as the head is computed from the leaves: the inner gradient must not run through that.
        theta = {name: value.clone() for name, value in meta.items()}
        theta |= self._head(centres, embedded)
        return self._from(theta, alpha, support, context)

    def go_on(self, meta: Tensors, adapted: Tensors, support: Examples, context: Context) -> Tensors:
        """Take inner steps on the further examples, starting from the task's network and head.

        The weights of a new class are initialised from its prototype in the task's adapted embedding.
        """
        alpha = rates(self.inner_lr, adapting(self.adapts, [*meta, WEIGHT, BIAS], context.network), context.step)
        theta, _ = split_statistics(adapted)
        before = len(theta[WEIGHT])
        if before < context.ways:
            body = {name: theta[name] for name in meta}
            embedded = context.forward(body, support.x).to(context.loss_dtype)
            new = self._head(class_means(embedded, support.y, context)[before:], embedded)
            theta |= {name: torch.cat([theta[name], more]) for name, more in new.items()}
        return self._from(theta, alpha, support, context)

    def _head(self, centres: Tensor, embedded: Tensor) -> Tensors:
        """The head of a prototypical network."""
        head = {WEIGHT: 2 * centres, BIAS: -centres.square().sum(dim=1)}
        if self.temperature is None:
            return head
        divisor = temperature_of(self.temperature, embedded)
        return {name: value / divisor for name, value in head.items()}

    def _from(self, theta: Tensors, alpha: Rates, support: Examples, context: Context) -> Tensors:
        """Where inner steps lead from network and head."""
        loss = SupportLoss(support, context.for_inner_steps(second_order=self.second_order), _logits)
        steps, by = steps_of(self.inner_steps, context), self.inner_optimizer
        theta = descended(loss, theta, alpha, context, optimizer=by, steps=steps, second_order=self.second_order)
        head = {name: theta.pop(name) for name in (WEIGHT, BIAS)}
        return with_statistics(theta, support, context, self.batch_norm) | head

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """Predict with the adapted head on the embedding of the adapted network."""
        theta, statistics = split_statistics(adapted)
        return _logits(theta, x, context, statistics)


def _logits(theta: Tensors, x: Tensor, context: Context, statistics: Tensors | None = None) -> Tensor:
    body = {name: value for name, value in theta.items() if name not in (WEIGHT, BIAS)}
    embedded = context.forward(body, x, statistics).to(context.loss_dtype)
    return embedded @ theta[WEIGHT].T + theta[BIAS]
