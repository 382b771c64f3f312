"""What the baselines share: joint training over all classes, then a new head on frozen features."""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm, Outcome
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.embedding import embed, embed_support, embedding_size
from metaray.algorithms.families.head import members
from metaray.algorithms.families.inner_loop import split_statistics, steps_of
from metaray.algorithms.families.prefixes import join, part, without
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.inputs import concatenate
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.errors import InputError
from metaray.tasks import TaskKind

JOINT = "joint:"


class JointTraining(Algorithm):
    """A representation f_theta trained with one classifier over all meta-train classes; each task gets a new head.

    Chen, Liu, Kira, Wang and Huang ("A closer look at few-shot classification", ICLR 2019, arXiv:1904.04232, section
    3.2 and figure 1). Training minimises the cross-entropy of C(f_theta(x); W_b) over the base classes: support and
    query of an episode are one labelled batch, whose labels are the places of its classes among those of meta-train,
    and nothing adapts. Then theta is frozen, and a new head C(.; W_n) is fitted to the support's features by stochastic
    gradient descent with momentum.

    A head learns from the features alone, which are computed once; its gradient has a closed form,

        d loss / d logits = (softmax(logits) - onehot(y)) / n

    Departures from the paper and its code: (1) a training batch holds the classes of one episode, not examples of any
    class; train at many ways and few shots to come near. (2) The paper fits the head in 100 epochs of batches of 4
    examples, drawn at random from a random start; here in `inner_steps` steps over the whole support set from a start
    that treats all classes alike, so that adaptation is a pure function of its arguments. Before the first step all
    logits of an example are equal. (3) There are no running averages: in training, support and query are normalised
    together under either protocol; at adaptation the support set with its own statistics, queries under `transductive`
    with those of the query batch, under `inductive` with those of the support set.

    Attributes:
        inner_lr: Learning rate of the head's gradient descent.
        inner_steps: Number of gradient descent steps on the head.
        momentum: Momentum of these steps; the first step has none.
        dampening: Share of a new gradient that does not enter the velocity, as in `torch.optim.SGD`.
        weight_decay: Weight decay of the head.
    """

    gradient_steps: ClassVar[bool] = True

    inner_lr: float = Field(default=0.01, ge=0)
    inner_steps: int = Field(default=100, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    dampening: float = Field(default=0.9, ge=0, le=1)
    weight_decay: float = Field(default=0.001, ge=0)

    @abstractmethod
    def joint_head(self, size: int, classes: int) -> Tensors:
        """The initial classifier of `size` features over all meta-train classes."""

    @abstractmethod
    def new_head(self, features: Tensor, ways: int) -> Tensors:
        """The head that fine-tuning starts from, the same for every class."""

    @abstractmethod
    def logits(self, head: Tensors, features: Tensor) -> Tensor:
        """[n, classes] of features [n, size]."""

    @abstractmethod
    def head_gradient(self, head: Tensors, features: Tensor, slope: Tensor) -> Tensors:
        """The gradient with respect to the head, given the gradient `slope` with respect to its logits."""

    def check_task(self, task: TaskKind) -> None:
        """Check that tasks have classes of their own.

        Raises:
            InputError: If they have none; the message names the algorithm and the task.
        """
        super().check_task(task)
        if not task.labels_vary:
            raise InputError(
                f"algorithm {self.kind} trains one classifier over all classes of meta-train, but the labels of "
                f"{task.kind} tasks mean the same in all of them"
            )

    def outputs(self, task_shape: TaskShape) -> int | None:
        """An embedding network, whatever the ways."""
        return None

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """The network's parameters and the joint classifier's."""
        if not task_shape.classes:
            raise InputError(f"{self.kind} trains a classifier over all meta-train classes, but their number is 0")
        head = self.joint_head(embedding_size(network, task_shape), task_shape.classes)
        return join(super().init(network, task_shape), {JOINT: head})

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """The fine-tuned head, and under inductive batch norm the support set's statistics."""
        features, statistics = embed_support(without(meta, JOINT), support.x, context, self.batch_norm)
        features = features if context.training else features.detach()
        return self._fitted(self.new_head(features, context.ways), features, support.y, context) | statistics

    def go_on(self, meta: Tensors, adapted: Tensors, support: Examples, context: Context) -> Tensors:
        """Fine-tune the task's head on the further examples; new classes start as in a new head."""
        features, statistics = embed_support(without(meta, JOINT), support.x, context, self.batch_norm)
        head, _ = split_statistics(adapted)
        new = self.new_head(features, context.ways)
        head = {name: torch.cat([value, new[name][len(value) :]]) for name, value in head.items()}
        return self._fitted(head, features, support.y, context) | statistics

    def _fitted(self, head: Tensors, features: Tensor, y: Tensor, context: Context) -> Tensors:
        """Where fine-tuning leads from a head."""
        target = members(y, context)

        def gradient(head: Tensors) -> Tensors:
            slope = (self.logits(head, features).softmax(dim=-1) - target) / len(target)
            return self.head_gradient(head, features, slope)

        return self.fine_tuned(gradient, head, context)

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """The task's head on the frozen features."""
        return self.logits(adapted, embed(without(meta, JOINT), adapted, x, context))

    def loss(self, meta: Tensors, episode: TensorEpisode, context: Context) -> Outcome:
        """The loss of support and query under the joint classifier in training; else as everywhere."""
        if not context.training:
            return super().loss(meta, episode, context)
        x, y = pooled(episode)
        features = context.forward(without(meta, JOINT), x).to(context.loss_dtype)
        logits, labels = self.logits(part(meta, JOINT), features), episode.classes[y]
        return Outcome(context.loss(logits, labels), context.score(logits, labels))

    def fine_tuned(self, gradient: Callable[[Tensors], Tensors], start: Tensors, context: Context) -> Tensors:
        """Gradient descent from `start` with momentum and weight decay, step for step as `torch.optim.SGD`."""
        theta, velocity = start, dict[str, Tensor]()
        for _ in range(steps_of(self.inner_steps, context)):
            slope = {name: g + self.weight_decay * theta[name] for name, g in gradient(theta).items()}
            velocity = {
                name: self.momentum * velocity[name] + (1 - self.dampening) * g if velocity else g
                for name, g in slope.items()
            }
            theta = {name: value - self.inner_lr * velocity[name] for name, value in theta.items()}
        return theta


def pooled(episode: TensorEpisode) -> Examples:
    """Support and query set as one batch of examples."""
    sides = (episode.support, episode.query)
    return Examples(concatenate([side.x for side in sides]), torch.cat([side.y for side in sides]))
