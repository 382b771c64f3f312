"""The interface of every meta-learning algorithm."""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.growth import fixed_statistics, joined
from metaray.algorithms.task_shape import TaskShape
from metaray.config import Config
from metaray.episodes.inputs import Inputs
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.errors import InputError
from metaray.models.batch_norm import Protocol, normalises_batches
from metaray.models.model import Fresh, Model, build_fresh, seeded, trainable
from metaray.phases import phase
from metaray.tasks import TaskKind

MOST_INNER_STEPS, MOST = 10_000, 1 << 20
"""Inner steps, and whatever else an algorithm counts."""


class Outcome(NamedTuple):
    """How one episode went.

    Attributes:
        loss: [] mean over the query; [B] for a chunk.
        score: [] of the query, as the task's kind has it, without gradient; [B] for a chunk. Where the context asks for
            `further` scores, [1 + F] and [B, 1 + F].
    """

    loss: Tensor
    score: Tensor


class MetaGradient(NamedTuple):
    """The outer-loop gradient of a chunk.

    Attributes:
        gradient: Gradient of each meta-parameter, by name, summed over the chunk's episodes.
        outcome: Outcome of each episode, [B].
    """

    gradient: Tensors
    outcome: Outcome


class Algorithm(Config):
    """A meta-learning algorithm. Its fields are its hyperparameters, its methods pure functions of their arguments.

    `meta` holds the meta-parameters by name, `adapted` whatever one task's support set taught. Both are flat dicts of
    tensors. Methods see one episode at a time; chunks of several are mapped over by `torch.vmap`.

    Attributes:
        batch_norm: "inductive" normalises query examples with the statistics of the support set, so that each is
            answered as it would be alone; "transductive", as most papers do, together with the rest of the query batch
            (some algorithms: and with the support).
    """

    kind: ClassVar[str]
    gradient_steps: ClassVar[bool] = False
    """Whether `adapt` takes inner steps, so that zero of them is "before adaptation"."""
    needs_classes: ClassVar[bool] = True
    """Whether it works with the members of each class; else any loss will do, and so any kind of task."""

    @model_validator(mode="after")
    def _takes_no_eternity(self) -> Self:
        """Learners come from others, too: none may ask for more steps than somebody would wait for."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, int) and value > (MOST_INNER_STEPS if name == "inner_steps" else MOST):
                limit = MOST_INNER_STEPS if name == "inner_steps" else MOST
                raise ValueError(f"{name}: at most {limit} (got {value})")
        return self

    batch_norm: Protocol = "inductive"

    @property
    def differentiates_twice(self) -> bool:
        """Whether the meta-gradient holds second derivatives of the network."""
        return False

    @property
    def turns(self) -> tuple[int, ...]:
        """Outer steps from which on it computes by other operations than before; schedules of rates aside.

        What is compiled is compiled for all of them before the first step.
        """
        return ()

    def check_task(self, task: TaskKind) -> None:
        """Refuse a kind of task that it cannot learn.

        Raises:
            InputError: If the algorithm cannot learn it; the message names both.
        """
        if self.needs_classes and not task.has_classes:
            raise InputError(f"algorithm {self.kind} works with classes, but {task.kind} tasks have none")

    @property
    def fixed_ways(self) -> bool:
        """Whether a classifier takes only tasks of as many classes as it was trained for."""
        return self.outputs(TaskShape(ways=2)) != self.outputs(TaskShape(ways=3))

    def outputs(self, task_shape: TaskShape) -> int | None:
        """Size of the network's output layer; None asks for an embedding network."""
        return task_shape.outputs

    def heeds_batch(self, network: nn.Module) -> bool:
        """Whether what is predicted for one input depends on the others of the same call."""
        return self.batch_norm == "transductive" and normalises_batches(network)

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """The initial meta-parameters, from a freshly built network; what is random comes from torch's generator.

        Frozen parameters of the network (those with `requires_grad=False`) are none of them.

        Raises:
            InputError: If the network lacks what the algorithm needs.
        """
        return {name: parameter.detach().clone() for name, parameter in trainable(network).items()}

    @abstractmethod
    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """Learn one task from its support set.

        Args:
            meta: The meta-parameters; not modified.
            support: x [n, *feature], y [n] labels or [n, target_size] values; n is N*K where all classes have K shots.
            context: The network, and whether this is training.

        Returns:
            What `predict` needs; connected to `meta` for differentiation while training.
        """

    @abstractmethod
    def predict(self, meta: Tensors, adapted: Tensors, x: Inputs, context: Context) -> Tensor:
        """What the task's kind asks for, [n, outputs] such as logits, of inputs x [n, *feature] under what `adapt`
        returned."""

    def summary(self, meta: Tensors, support: Examples, context: Context, statistics: Tensors) -> Tensors | None:
        """What is enough to know of a support set to learn the task from it, and from it with more: see `growth`.

        None, as here, where only the examples themselves will do.

        Args:
            meta: The meta-parameters.
            support: Some of a task's examples, perhaps of some of its classes.
            context: Circumstances of the call; its ways are those of the whole task.
            statistics: Batch norm statistics with which the examples are to be embedded, as `growth.fixed_statistics`
                finds them.
        """
        return None

    def joined(self, before: Tensors, further: Tensors) -> Tensors:
        """The summary of two sets of examples; see `growth.joined`."""
        return joined(before, further)

    def adapt_to(self, meta: Tensors, summary: Tensors, context: Context) -> Tensors:
        """What `adapt` returns for the examples that a summary is of."""
        raise NotImplementedError(f"{self.kind} makes no summaries")

    def go_on(self, meta: Tensors, adapted: Tensors, support: Examples, context: Context) -> Tensors:
        """Go on from what a task has learned, with further examples alone.

        By default the task's parameters stand in for the meta-parameters of their names, and `adapt` starts there.

        Args:
            meta: The meta-parameters.
            adapted: What the task has learned, perhaps of fewer classes.
            support: The further examples, perhaps of some classes only.
            context: Circumstances of the call; its ways are those of the grown task.

        Raises:
            InputError: If it takes no inner steps, or the task holds something else than the network's parameters.
        """
        theta = {name: value for name, value in adapted.items() if name not in fixed_statistics(adapted)}
        if not self.gradient_steps or not theta or not theta.keys() <= meta.keys():
            raise InputError(
                f"a {self.kind} learner cannot go on from what a task has learned: extend it with how='together'"
            )
        return self.adapt({**meta, **theta}, support, context)

    def spread(self, meta: Tensors, adapted: Tensors, x: Inputs, context: Context) -> Tensor | None:
        """The standard deviation [n, outputs] that it gives each value of `predict`; None where it gives none."""
        return None

    def loss(self, meta: Tensors, episode: TensorEpisode, context: Context) -> Outcome:
        """Adapt to the support, then loss and score of the task's kind on the query."""
        with phase("inner loop"):
            adapted = self.adapt(meta, episode.support, context)
        with phase("query pass"):
            output = self.predict(meta, adapted, episode.query.x, context)
            return Outcome(context.loss(output, episode.query.y), context.score(output, episode.query.y))

    def meta_gradient(self, meta: Tensors, chunk: TensorEpisode, context: Context) -> MetaGradient:
        """Differentiate `loss` with respect to the meta-parameters.

        Args:
            meta: Leaves that require gradient.
            chunk: One episode, or with `context.batched` several with a leading axis B.
            context: Training context.
        """
        outcome = self.outcomes(meta, chunk, context)
        with phase("outer backward"):
            gradients = torch.autograd.grad(outcome.loss.sum(), list(meta.values()), materialize_grads=True)
        return MetaGradient(dict(zip(meta, gradients, strict=True)), Outcome(outcome.loss.detach(), outcome.score))

    def outcomes(self, meta: Tensors, chunk: TensorEpisode, context: Context) -> Outcome:
        """`loss` of each episode of a chunk, [B]."""
        if context.batched:
            each: Callable[[TensorEpisode], Outcome] = lambda episode: self.loss(meta, episode, context)  # noqa: E731
            return Outcome(*torch.vmap(each, randomness=context.randomness)(chunk))
        loss, score = self.loss(meta, chunk, context)
        return Outcome(loss[None], score[None])


def by_episode(
    gradient_of: Callable[[TensorEpisode], tuple[Tensors, Outcome]], chunk: TensorEpisode, context: Context
) -> MetaGradient:
    """The meta-gradient of a chunk where an algorithm brings that of one episode, without a graph."""
    if context.batched:
        gradient, outcome = torch.vmap(gradient_of, randomness=context.randomness)(chunk)
        return MetaGradient({name: g.sum(0) for name, g in gradient.items()}, Outcome(*outcome))
    gradient, outcome = gradient_of(chunk)
    return MetaGradient(gradient, Outcome(outcome.loss[None], outcome.score[None]))


def start(
    algorithm: Algorithm, model: Model, task_shape: TaskShape, *, seed: int, fresh: Fresh | None = None
) -> tuple[nn.Module, Tensors]:
    """The network and the initial meta-parameters, on the CPU: functions of the arguments alone.

    Args:
        algorithm: Algorithm whose meta-parameters are built.
        model: Model to build.
        task_shape: Its shape.
        seed: Seed of both.
        fresh: What `build_fresh` built of these arguments, where somebody has done so already.
    """
    network, generator = fresh or build_fresh(
        model,
        task_shape.feature_shape,
        algorithm.outputs(task_shape),
        seed=seed,
        preprocessing=task_shape.preprocessing,
    )
    with seeded(seed):
        torch.default_generator.set_state(generator)
        return network, algorithm.init(network, task_shape)
