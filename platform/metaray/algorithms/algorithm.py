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
    """The loss and score of one episode, or of each episode of a chunk.

    Attributes:
        loss: Mean loss of the query set, a scalar; [B] for a chunk.
        score: Score of the query set as the task kind defines it, a scalar without gradient; [B] for a chunk. If the
            context asks for `further` scores, [1 + F] and [B, 1 + F].
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
    """A meta-learning algorithm: its fields are hyperparameters, its methods pure functions of their arguments.

    `meta` holds the meta-parameters by name, `adapted` what one task's support set taught; both are flat dicts of
    tensors. Methods see one episode at a time; `torch.vmap` maps them over a chunk of several episodes.

    Attributes:
        batch_norm: "inductive" normalises query examples with the statistics of the support set, so that each is
            predicted as it would be alone. "transductive", as in most papers, normalises them with the statistics of
            the whole query batch (in some algorithms, of query and support together).
    """

    kind: ClassVar[str]
    gradient_steps: ClassVar[bool] = False
    """Whether `adapt` takes inner steps, so that zero inner steps give the score before adaptation."""
    needs_classes: ClassVar[bool] = True
    """Whether the algorithm groups examples by class. If not, it works with any loss, and so with any task kind."""

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
        """Whether the meta-gradient contains second derivatives of the network."""
        return False

    @property
    def turns(self) -> tuple[int, ...]:
        """Outer steps at which the algorithm begins to compute by other operations, schedules of rates aside.

        Compiled execution compiles all of these phases before the first outer step.
        """
        return ()

    def check_task(self, task: TaskKind) -> None:
        """Check that the algorithm can learn tasks of a kind.

        Raises:
            InputError: If the algorithm cannot learn this kind of task; the message names both.
        """
        if self.needs_classes and not task.has_classes:
            raise InputError(f"algorithm {self.kind} works with classes, but {task.kind} tasks have none")

    @property
    def fixed_ways(self) -> bool:
        """Whether a classifier takes only tasks with as many classes as in training."""
        return self.outputs(TaskShape(ways=2)) != self.outputs(TaskShape(ways=3))

    def outputs(self, task_shape: TaskShape) -> int | None:
        """Size of the network's output layer; None for an embedding network without one."""
        return task_shape.outputs

    def heeds_batch(self, network: nn.Module) -> bool:
        """Whether the prediction for one input depends on the other inputs of the same call."""
        return self.batch_norm == "transductive" and normalises_batches(network)

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """Create the initial meta-parameters from a freshly built network.

        Random numbers come from torch's global generator. Frozen parameters of the network (`requires_grad=False`) are
        not meta-parameters.

        Raises:
            InputError: If the network lacks something that the algorithm needs.
        """
        return {name: parameter.detach().clone() for name, parameter in trainable(network).items()}

    @abstractmethod
    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """Adapt to one task, given its support set.

        Args:
            meta: The meta-parameters; not modified.
            support: Support set: x [n, *feature] and y, labels [n] or values [n, target_size]; n is N * K if all N
                classes have K shots.
            context: Circumstances of the call: the network, the outer step, and whether this is training.

        Returns:
            The tensors that `predict` needs. In training they are connected to `meta` for differentiation.
        """

    @abstractmethod
    def predict(self, meta: Tensors, adapted: Tensors, x: Inputs, context: Context) -> Tensor:
        """Predict [n, outputs], such as logits or values, for inputs x [n, *feature].

        `adapted` is what `adapt` returned for the task.
        """

    def summary(self, meta: Tensors, support: Examples, context: Context, statistics: Tensors) -> Tensors | None:
        """Summarise a support set by what is enough to learn the task from it, and to extend it; see `growth`.

        Returns None, as by default, if the algorithm needs the examples themselves.

        Args:
            meta: The meta-parameters.
            support: Some of a task's examples, possibly of only some of its classes.
            context: Circumstances of the call; its number of ways is that of the whole task.
            statistics: Batch norm statistics for embedding the examples, as `growth.fixed_statistics` returns them.
        """
        return None

    def joined(self, before: Tensors, further: Tensors) -> Tensors:
        """Combine the summaries of two sets of examples of one task; see `growth.joined`."""
        return joined(before, further)

    def adapt_to(self, meta: Tensors, summary: Tensors, context: Context) -> Tensors:
        """Adapt to the examples behind a summary: the same result as `adapt` on these examples."""
        raise NotImplementedError(f"{self.kind} makes no summaries")

    def go_on(self, meta: Tensors, adapted: Tensors, support: Examples, context: Context) -> Tensors:
        """Continue the adaptation of a task on further examples alone.

        By default, `adapt` starts from the task's adapted parameters in place of the meta-parameters of the same names.

        Args:
            meta: The meta-parameters.
            adapted: What `adapt` returned for the task so far, possibly with fewer classes.
            support: The further examples, possibly of only some classes.
            context: Circumstances of the call; its number of ways is that of the extended task.

        Raises:
            InputError: If the algorithm takes no inner steps, or `adapted` holds something other than parameters of the
                network.
        """
        theta = {name: value for name, value in adapted.items() if name not in fixed_statistics(adapted)}
        if not self.gradient_steps or not theta or not theta.keys() <= meta.keys():
            raise InputError(
                f"a {self.kind} learner cannot go on from what a task has learned: extend it with how='together'"
            )
        return self.adapt({**meta, **theta}, support, context)

    def spread(self, meta: Tensors, adapted: Tensors, x: Inputs, context: Context) -> Tensor | None:
        """Predicted standard deviation [n, outputs] of each value of `predict`; None without one."""
        return None

    def loss(self, meta: Tensors, episode: TensorEpisode, context: Context) -> Outcome:
        """Adapt to the support set, then compute the loss and score of the query set."""
        with phase("inner loop"):
            adapted = self.adapt(meta, episode.support, context)
        with phase("query pass"):
            output = self.predict(meta, adapted, episode.query.x, context)
            return Outcome(context.loss(output, episode.query.y), context.score(output, episode.query.y))

    def meta_gradient(self, meta: Tensors, chunk: TensorEpisode, context: Context) -> MetaGradient:
        """Differentiate `loss` with respect to the meta-parameters.

        Args:
            meta: The meta-parameters, as leaf tensors that require gradients.
            chunk: One episode; or, if `context.batched`, B episodes with a leading axis B.
            context: Training context.
        """
        outcome = self.outcomes(meta, chunk, context)
        with phase("outer backward"):
            gradients = torch.autograd.grad(outcome.loss.sum(), list(meta.values()), materialize_grads=True)
        return MetaGradient(dict(zip(meta, gradients, strict=True)), Outcome(outcome.loss.detach(), outcome.score))

    def outcomes(self, meta: Tensors, chunk: TensorEpisode, context: Context) -> Outcome:
        """Loss and score, each [B], of the B episodes of a chunk."""
        if context.batched:
            each: Callable[[TensorEpisode], Outcome] = lambda episode: self.loss(meta, episode, context)  # noqa: E731
            return Outcome(*torch.vmap(each, randomness=context.randomness)(chunk))
        loss, score = self.loss(meta, chunk, context)
        return Outcome(loss[None], score[None])


def by_episode(
    gradient_of: Callable[[TensorEpisode], tuple[Tensors, Outcome]], chunk: TensorEpisode, context: Context
) -> MetaGradient:
    """The meta-gradient of a chunk from a function that computes that of one episode, without a graph."""
    if context.batched:
        gradient, outcome = torch.vmap(gradient_of, randomness=context.randomness)(chunk)
        return MetaGradient({name: g.sum(0) for name, g in gradient.items()}, Outcome(*outcome))
    gradient, outcome = gradient_of(chunk)
    return MetaGradient(gradient, Outcome(outcome.loss[None], outcome.score[None]))


def start(
    algorithm: Algorithm, model: Model, task_shape: TaskShape, *, seed: int, fresh: Fresh | None = None
) -> tuple[nn.Module, Tensors]:
    """The network and the initial meta-parameters, on the CPU; they depend on the arguments alone.

    Args:
        algorithm: Algorithm whose meta-parameters are built.
        model: Model to build.
        task_shape: Shape of the tasks.
        seed: Seed of the network and of the meta-parameters.
        fresh: Result of `build_fresh` with these arguments, if it was computed already.
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
