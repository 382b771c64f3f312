"""MAML++."""

from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm, Outcome
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.adapts import EVERYTHING, Adapts, adapting
from metaray.algorithms.families.inner_loop import descend, predict_at, steps_of, support_loss, with_statistics
from metaray.algorithms.families.inner_lr import InnerLRByStep, rates_by_step
from metaray.algorithms.families.inner_optimizers import PLAIN, StepsBy
from metaray.algorithms.families.prefixes import join, part, without
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.models.batch_norm import EpisodicBatchNorm
from metaray.phases import in_phase

RATE, STEPS = "inner_lr:", "by_step:"


class MAMLPP(Algorithm):
    """MAML++: MAML with learned rates, a loss at every step, annealed order and batch norm weights by step.

    Antoniou, Edwards and Storkey ("How to train your MAML", ICLR 2019, arXiv:1810.09502, section 4):

    - LSLR: the outer loop learns an inner learning rate for each layer (parameter tensor) and step.
    - MSL: sum_i w_i L_q(theta_i) over the steps i, the loss after each of them. The weights start equal and are
      annealed, over the first `msl_steps` outer steps, to the last step alone.
    - DA: first-order gradients for the first `first_order_steps` outer steps, second-order ones after.
    - BNWB: scale and shift of batch norm are meta-learned for each step, and no inner step changes them.
    - CA: anneal the outer learning rate: `Optimizer(schedule="cosine")`.

    Departures: BNRS (running statistics by step) is left out, since no inner loop here has running statistics: query
    batches are normalised as `batch_norm` says. Annealing counts outer steps, not epochs. MSL weights never fall below
    0.03 / inner_steps while they are annealed, as in the authors' code. At evaluation with more inner steps than
    trained, the last step's rates and batch norm weights serve for the rest.

    Attributes:
        inner_lr: Initial value of the learned inner learning rates: a number, one for each parameter pattern, or one
            for each inner step (of a schedule over outer steps, its value at step 0).
        inner_steps: Number of gradient steps on the support set.
        msl_steps: Number of outer steps with the multi-step loss; 0 for none.
        first_order_steps: Number of outer steps with first-order gradients, before second-order ones begin.
        adapts: Patterns of the parameters that inner steps change, and that have learned rates; batch norm weights are
            never among them.
        inner_optimizer: Optimiser of the inner steps.
    """

    kind: ClassVar[str] = "mamlpp"
    gradient_steps: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = False
    left_out_of_json: ClassVar[tuple[str, ...]] = ("adapts", "inner_optimizer")

    inner_lr: InnerLRByStep = 0.1
    inner_steps: int = Field(default=5, ge=1)
    msl_steps: int = Field(default=5000, ge=0)
    first_order_steps: int = Field(default=0, ge=0)
    adapts: Adapts = EVERYTHING
    inner_optimizer: StepsBy = PLAIN

    @model_validator(mode="after")
    def _a_rate_per_step(self) -> "MAMLPP":
        if isinstance(self.inner_lr, tuple) and len(self.inner_lr) != self.inner_steps:
            raise ValueError(f"inner_lr: {len(self.inner_lr)} rates for {self.inner_steps} inner_steps")
        return self

    @property
    def differentiates_twice(self) -> bool:
        """Always true: the inner gradients are differentiated again from `first_order_steps` on."""
        return True

    @property
    def turns(self) -> tuple[int, ...]:
        """The outer steps at which second-order gradients begin and the multi-step loss ends."""
        return self.first_order_steps, self.msl_steps

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """theta, batch norm weights by inner step [inner_steps, channels], and learned rates [inner_steps].

        Each other parameter that adapts has such rates.

        Raises:
            InputError: If a pattern of `adapts` fits none of these other parameters.
        """
        theta = super().init(network, task_shape)
        layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, EpisodicBatchNorm)}
        fixed = {f"{name}.{own}" for name in layers for own in ("weight", "bias")}
        others = [name for name in theta if name not in fixed]
        start = rates_by_step(self.inner_lr, adapting(self.adapts, others, network), self.inner_steps)
        by_step = {name: torch.stack([theta[name]] * self.inner_steps) for name in theta if name in fixed}
        learned = {name: theta[name].new_tensor(rates) for name, rates in start.items()}
        return join({name: theta[name] for name in others}, {STEPS: by_step, RATE: learned})

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """Adapt the parameters by inner steps, to theta' after the last step."""
        return with_statistics(self._path(meta, support, context)[-1], support, context, self.batch_norm)

    def go_on(self, meta: Tensors, adapted: Tensors, support: Examples, context: Context) -> Tensors:
        """Take inner steps on the further examples from theta', with the rates and batch norm weights of step 0 on."""
        theta = {name: value for name, value in adapted.items() if name in meta}
        return self.adapt({**meta, **theta}, support, context)

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """Predict with the network at theta'."""
        return predict_at(adapted, x, context)

    def loss(self, meta: Tensors, episode: TensorEpisode, context: Context) -> Outcome:
        """The weighted sum of the query losses after each inner step in training; else that after the last step."""
        weights = self.weights(context.step) if context.training else []
        if not any(weights[:-1]):
            return super().loss(meta, episode, context)
        outputs = []
        for theta in self._path(meta, episode.support, context)[1:]:
            adapted = with_statistics(theta, episode.support, context, self.batch_norm)
            outputs.append(predict_at(adapted, episode.query.x, context))
        losses = [context.loss(output, episode.query.y) for output in outputs]
        total = torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum()
        return Outcome(total, context.score(outputs[-1], episode.query.y))

    def weights(self, step: int) -> list[float]:
        """The weights w_i of the multi-step loss at an outer step; their sum is 1."""
        count = self.inner_steps
        if step >= self.msl_steps:
            return [0.0] * (count - 1) + [1.0]
        least = 0.03 / count
        early = max(1 / count - step * (1 / count / self.msl_steps), least)
        return [early] * (count - 1) + [1 - (count - 1) * early]

    @in_phase("inner loop")
    def _path(self, meta: Tensors, support: Examples, context: Context) -> list[Tensors]:
        """theta before the first step and after each, with the batch norm weights that belong there."""
        second_order = context.step >= self.first_order_steps
        theta = without(meta, RATE, STEPS)
        path = [theta | _of_step(meta, 0)]
        loss, alphas = support_loss(support, context, second_order=second_order), part(meta, RATE)
        by, state = self.inner_optimizer, self.inner_optimizer.begin({name: theta[name] for name in alphas})
        for number in range(steps_of(self.inner_steps, context)):
            at = min(number, self.inner_steps - 1)
            alpha = {name: rates[at] for name, rates in alphas.items()}
            here = theta | _of_step(meta, at)
            moved, state = descend(loss, here, state, alpha, context, optimizer=by, second_order=second_order)
            theta = {name: moved[name] for name in theta}
            path.append(moved)
        return path


def _of_step(meta: Tensors, step: int) -> Tensors:
    return {name: value[step] for name, value in part(meta, STEPS).items()}
