"""Baseline: joint training, then fine-tuning."""

from typing import ClassVar

from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm, Outcome
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.adapts import EVERYTHING, Adapts, adapting
from metaray.algorithms.families.inner_loop import predict_at, support_loss, with_statistics
from metaray.algorithms.families.joint_training import JointTraining, pooled
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.errors import InputError
from metaray.tasks import TaskKind


class Baseline(JointTraining):
    """Baseline: no meta-learning, a linear classifier over all classes and then one for each task.

    Chen et al. (ICLR 2019, arXiv:1904.04232, section 3.2); see `JointTraining` for equations and departures. The heads
    are linear, and a task's starts at zero, from where the cross-entropy is convex:

        C(f(x); W) = softmax(W f(x) + b)

    Where outputs mean the same in all tasks it is the baseline of Finn, Abbeel and Levine ("Model-agnostic
    meta-learning for fast adaptation of deep networks", ICML 2017, arXiv:1703.03400, section 5.1): one network with an
    output layer is trained on support and query of all tasks together, and at adaptation all its weights are fine-tuned
    on the support.
    Departure: that paper fine-tunes by plain gradient descent (`momentum=0, dampening=0, weight_decay=0`).

    Example:
        >>> from metaray.tasks import Regression
        >>> Baseline().outputs(TaskShape(ways=5)) is None, Baseline().outputs(TaskShape(task=Regression(target_size=2)))
        (True, 2)

    Attributes:
        inner_lr: Learning rate of the fine-tuning steps.
        inner_steps: Number of fine-tuning steps.
        momentum: Momentum of the fine-tuning steps; the first step has none.
        dampening: Share of a new gradient that does not enter the velocity, as in `torch.optim.SGD`.
        weight_decay: Weight decay of the parameters that are fine-tuned.
        adapts: Patterns of the parameters that are fine-tuned, if outputs mean the same in all tasks; otherwise it must
            be left out, since the head alone is fine-tuned.
    """

    kind: ClassVar[str] = "baseline"
    needs_classes: ClassVar[bool] = False
    left_out_of_json: ClassVar[tuple[str, ...]] = ("adapts",)

    adapts: Adapts = EVERYTHING

    def check_task(self, task: TaskKind) -> None:
        """Accept every kind of task."""

    def outputs(self, task_shape: TaskShape) -> int | None:
        """None, an embedding network, if labels vary from task to task; otherwise the number of outputs."""
        return None if task_shape.task.labels_vary else task_shape.outputs

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """The network's parameters, and those of the joint classifier if labels vary from task to task.

        Raises:
            InputError: If a pattern of `adapts` fits no parameter of the network, or is given although labels vary,
                where it would have no effect.
        """
        if not task_shape.task.labels_vary:
            meta = Algorithm.init(self, network, task_shape)
            adapting(self.adapts, list(meta), network)
            return meta
        if self.adapts != EVERYTHING:
            raise InputError(
                f"baseline fine-tunes a new head alone where labels vary from task to task, so that adapts "
                f"{', '.join(map(repr, self.adapts))} would do nothing; leave it out"
            )
        return super().init(network, task_shape)

    def joint_head(self, size: int, classes: int) -> Tensors:
        """The initial joint classifier: Glorot-uniform weights and zero biases, as in output layers."""
        layer = nn.Linear(size, classes)
        nn.init.xavier_uniform_(layer.weight)
        return {"weight": layer.weight.detach(), "bias": layer.bias.detach().zero_()}

    def new_head(self, features: Tensor, ways: int) -> Tensors:
        """The initial head of a task: zero weights and biases."""
        return {"weight": features.new_zeros(ways, features.shape[1]), "bias": features.new_zeros(ways)}

    def logits(self, head: Tensors, features: Tensor) -> Tensor:
        """The logits W f + b of the features f."""
        return features @ head["weight"].T + head["bias"]

    def head_gradient(self, head: Tensors, features: Tensor, slope: Tensor) -> Tensors:
        """The gradient of the loss with respect to W and b."""
        return {"weight": slope.T @ features, "bias": slope.sum(dim=0)}

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """Fine-tune the task's head, or the network if outputs mean the same in all tasks.

        Under inductive batch norm the statistics of the support set are returned, too.
        """
        if context.task.labels_vary:
            return super().adapt(meta, support, context)
        loss = support_loss(support, context)
        start = meta if context.training else {name: value.detach() for name, value in meta.items()}
        moving = {name: start[name] for name in adapting(self.adapts, list(start), context.network)}

        def gradient(at: Tensors) -> Tensors:
            return context.gradient(lambda some: loss({**start, **some}), at, differentiable=False)

        theta = {**start, **self.fine_tuned(gradient, moving, context)}
        return with_statistics(theta, support, context, self.batch_norm)

    def go_on(self, meta: Tensors, adapted: Tensors, support: Examples, context: Context) -> Tensors:
        """Fine-tune the task's head or network further, on the further examples."""
        if context.task.labels_vary:
            return super().go_on(meta, adapted, support, context)
        return Algorithm.go_on(self, meta, adapted, support, context)

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """Predict with the task's head on frozen features, or with the fine-tuned network."""
        if context.task.labels_vary:
            return super().predict(meta, adapted, x, context)
        return predict_at(adapted, x, context)

    def loss(self, meta: Tensors, episode: TensorEpisode, context: Context) -> Outcome:
        """The loss of support and query together, without adaptation, in training; else that after adaptation."""
        if context.task.labels_vary or not context.training:
            return super().loss(meta, episode, context)
        x, y = pooled(episode)
        output = context.forward(meta, x)
        return Outcome(context.loss(output, y), context.score(output, y))
