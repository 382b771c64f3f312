"""Reptile."""

from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm, MetaGradient, Outcome, by_episode
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.adapts import EVERYTHING, Adapts, adapting
from metaray.algorithms.families.inner_loop import (
    SupportLoss,
    predict_at,
    steps_of,
    support_loss,
    with_statistics,
)
from metaray.algorithms.families.inner_lr import InnerLR, rates
from metaray.algorithms.families.inner_optimizers import (
    INNER_OPTIMIZERS,
    PLAIN,
    InnerMomentum,
    InnerOptimizer,
    State,
)
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.inputs import concatenate, take
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.imports import reads_kind, writes_kind
from metaray.phases import in_phase

SECOND_MOMENT, EPSILON = 0.999, 1e-8
StepsBy = Annotated[
    Literal["adam", "sgd", "momentum"] | InnerOptimizer,
    reads_kind(INNER_OPTIMIZERS, InnerOptimizer, what="inner optimiser", by_name=True),
    writes_kind(INNER_OPTIMIZERS),
]
MIXER = (0x5851F42D4C957F2D, 0x14057B7EF767814F)


class Reptile(Algorithm):
    """Reptile: move the initialisation towards what a few inner steps on a task make of it.

    Nichol, Achiam and Schulman ("On first-order meta-learning algorithms", 2018, arXiv:1803.02999, algorithm 1 and
    section 3): with phi = U^k(theta) after k inner steps on mini-batches of the task,

        theta <- theta + epsilon * mean_i (phi_i - theta)

    The outer optimiser gets theta - phi as the gradient, so plain SGD of rate epsilon is the paper's update. There is
    no query set in training: support and query together are the task's data (for K-shot tasks the paper samples more
    than K examples a class in training, so take `shots + queries` accordingly). Mini-batches come from permutations of
    that data, which the episode's seed decides. The inner optimiser is Adam without momentum (beta_1 = 0), as in
    section 6.1.

    Departures: Adam's second moments start anew with each task (the authors' code carries them from task to task,
    which would make a task depend on those before it); at adaptation a step uses the whole support set instead of a
    mini-batch. Where `adapts` names a part of theta, the steps are of that part alone; the others get, as in `FOMAML`,
    the gradient of the loss that is left at phi on all of the task's data, which no rate has scaled.

    Attributes:
        inner_lr: Inner learning rate: a number, one for each parameter pattern, or a schedule over outer steps.
        inner_steps: Number k of inner steps in training.
        eval_steps: Number of inner steps at adaptation; the paper takes many more than in training.
        batch_size: Number of examples of a mini-batch in training; None takes all examples of the task.
        inner_optimizer: Inner optimiser: "adam" (as in the paper: beta_1 = 0, beta_2 = 0.999), "sgd", "momentum", or an
            object with its own fields.
        adapts: Patterns of the parameters that inner steps change.
    """

    kind: ClassVar[str] = "reptile"
    gradient_steps: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = False
    left_out_of_json: ClassVar[tuple[str, ...]] = ("adapts",)

    inner_lr: InnerLR = 1e-3
    inner_steps: int = Field(default=5, ge=0)
    eval_steps: int = Field(default=50, ge=0)
    batch_size: int | None = Field(default=10, ge=1)
    inner_optimizer: StepsBy = "adam"
    adapts: Adapts = EVERYTHING

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """The network's parameters as meta-parameters.

        Raises:
            InputError: If a pattern of `adapts` fits no parameter.
        """
        meta = super().init(network, task_shape)
        adapting(self.adapts, list(meta), network)
        return meta

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """Adapt the parameters to phi by inner steps on the support set alone."""
        count = steps_of(self.eval_steps, context)
        phi = self._descend(meta, [support] * count, context)
        return with_statistics(phi, support, context, self.batch_norm)

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """Predict with the network at phi."""
        return predict_at(adapted, x, context)

    def loss(self, meta: Tensors, episode: TensorEpisode, context: Context) -> Outcome:
        """The loss at phi on all data of the task in training; otherwise the loss on the query set."""
        if not context.training:
            return super().loss(meta, episode, context)
        return self._judged(*self._trained(meta, episode, context), context)

    def meta_gradient(self, meta: Tensors, chunk: TensorEpisode, context: Context) -> MetaGradient:
        """The outer gradient theta - phi.

        If all of theta adapts, nothing is differentiated beyond the inner steps.
        """

        def gradient_of(episode: TensorEpisode) -> tuple[Tensors, Outcome]:
            with torch.no_grad():
                data, phi = self._trained(meta, episode, context)
                gradient = {name: value.detach() - phi[name] for name, value in meta.items()}
                return gradient | self._of_rest(data, phi, context), self._judged(data, phi, context)

        return by_episode(gradient_of, chunk, context)

    def _of_rest(self, data: Examples, phi: Tensors, context: Context) -> Tensors:
        """The gradient of what does not adapt."""
        moving = adapting(self.adapts, list(phi), context.network)
        rest = {name: value for name, value in phi.items() if name not in set(moving)}

        def loss(some: Tensors) -> Tensor:
            at = with_statistics({**phi, **some}, data, context, self.batch_norm)
            return context.loss(predict_at(at, data.x, context), data.y)

        return context.gradient(loss, rest, differentiable=False)

    @in_phase("query pass")
    def _judged(self, data: Examples, phi: Tensors, context: Context) -> Outcome:
        output = predict_at(with_statistics(phi, data, context, self.batch_norm), data.x, context)
        return Outcome(context.loss(output, data.y), context.score(output, data.y))

    @in_phase("inner loop")
    def _trained(self, meta: Tensors, episode: TensorEpisode, context: Context) -> tuple[Examples, Tensors]:
        """All data of a task, and phi after `inner_steps` mini-batches of it."""
        sides = (episode.support, episode.query)
        data = Examples(concatenate([side.x for side in sides]), torch.cat([side.y for side in sides]))
        count = len(data.y)
        size = min(self.batch_size or count, count)
        rounds = -(-self.inner_steps * size // count)
        none = torch.zeros(0, dtype=torch.int64, device=data.y.device)
        order = torch.cat([none, *(permutation(episode.seed, number, count) for number in range(rounds))])
        rows = [order[start : start + size] for start in range(0, self.inner_steps * size, size)]
        return data, self._descend(meta, [Examples(take(data.x, row), data.y[row]) for row in rows], context)

    def _descend(self, meta: Tensors, batches: list[Examples], context: Context) -> Tensors:
        """One step a batch, from theta; nothing is connected to anything."""
        theta = {name: value.detach() for name, value in meta.items()}
        moving = adapting(self.adapts, list(meta), context.network)
        alpha = rates(self.inner_lr, moving, context.step)
        phi = {name: theta[name] for name in moving}
        step = _PaperAdam(phi) if self.inner_optimizer == "adam" else _Steps(self.inner_optimizer, phi)
        for batch in batches:
            of_whole = support_loss(batch, context)
            gradient = context.gradient(partial(_at, of_whole, theta), phi, differentiable=False)
            directions = step(gradient)
            phi = {name: (value - alpha[name] * directions[name]).detach() for name, value in phi.items()}
        return {**theta, **phi}


def _at(loss: SupportLoss, theta: Tensors, some: Tensors) -> Tensor:
    """The loss at theta with some of it replaced."""
    return loss({**theta, **some})


class _PaperAdam:
    """Adam without momentum, as in section 6.1: directions of one gradient after the other."""

    def __init__(self, phi: Tensors) -> None:
        self._square = {name: torch.zeros_like(value) for name, value in phi.items()}
        self._number = 0

    def __call__(self, gradient: Tensors) -> Tensors:
        self._number += 1
        self._square = {
            name: SECOND_MOMENT * value + (1 - SECOND_MOMENT) * gradient[name].square()
            for name, value in self._square.items()
        }
        unbiased = 1 - SECOND_MOMENT**self._number
        return {name: g / ((self._square[name] / unbiased).sqrt() + EPSILON) for name, g in gradient.items()}


class _Steps:
    """Directions of any inner optimiser."""

    def __init__(self, optimizer: Literal["sgd", "momentum"] | InnerOptimizer, phi: Tensors) -> None:
        named = {"sgd": PLAIN, "momentum": InnerMomentum()}
        self._optimizer = named[optimizer] if isinstance(optimizer, str) else optimizer
        self._state: State = self._optimizer.begin(phi)

    def __call__(self, gradient: Tensors) -> Tensors:
        directions, self._state = self._optimizer.directions(gradient, self._state)
        return directions


def permutation(seed: Tensor, number: int, count: int) -> Tensor:
    """A permutation of 0 .. count-1 that depends on an episode's seed and a number.

    A counter-based generator in tensor arithmetic (the multiplier and increment are those of Knuth's MMIX, the mixing
    is SplitMix64's shift and multiply): `torch.vmap` has no generators by episode.

    Args:
        seed: Seed of the episode, an int64 scalar.
        number: Number of the permutation for this seed.
        count: Length of the permutation.
    """
    place = torch.arange(count, device=seed.device, dtype=torch.int64) + (number * count + 1)
    words = (seed + place * MIXER[0]) * MIXER[0] + MIXER[1]
    for shift in (30, 27, 31):
        words = (words ^ (words >> shift)) * MIXER[0]
    return words.argsort(stable=True)
