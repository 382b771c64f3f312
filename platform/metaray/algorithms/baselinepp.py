"""Baseline++: joint training, then fine-tuning, with cosine similarities."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from metaray.algorithms.context import Tensors
from metaray.algorithms.families.joint_training import JointTraining

EPSILON = 1e-5


class BaselinePP(JointTraining):
    """Baseline++: the baseline with a classifier of cosine similarities, which keeps the features of a class close.

    Chen et al. (ICLR 2019, arXiv:1904.04232, section 3.2); see `JointTraining` for training, fine-tuning and
    departures. A class is a vector w_k, and with unit vectors u(.) and a fixed scale s

        C(f(x); W) = softmax_k( s u(f(x)) . u(w_k) )

    A task's vectors all start in the mean direction of its support. With g_k = sum_i slope_ik u(f(x_i)), what reaches
    w_k is the part of g_k that turns it: s (g_k - (g_k . u_k) u_k) / |w_k|.

    Departures: class vectors have no learned norms (the authors' code adds one a class); s is the same in training and
    at adaptation (the authors' code has 10 for more than 200 classes and 2 for fewer).

    Example:
        >>> BaselinePP(scale=10).kind
        'baselinepp'

    Attributes:
        inner_lr: Learning rate of the head's gradient descent.
        inner_steps: Number of gradient descent steps on the head.
        momentum: Momentum of these steps; the first step has none.
        dampening: Share of a new gradient that does not enter the velocity, as in `torch.optim.SGD`.
        weight_decay: Weight decay of the head.
        scale: Scale s of the cosine similarities.
    """

    kind: ClassVar[str] = "baselinepp"

    scale: float = Field(default=10, gt=0)

    def joint_head(self, size: int, classes: int) -> Tensors:
        """The initial joint classifier: random class vectors, as torch initialises a linear layer."""
        return {"weight": nn.Linear(size, classes, bias=False).weight.detach()}

    def new_head(self, features: Tensor, ways: int) -> Tensors:
        """The initial head of a task: the mean direction of the support set as each class vector."""
        return {"weight": unit(unit(features).mean(dim=0)).expand(ways, -1)}

    def logits(self, head: Tensors, features: Tensor) -> Tensor:
        """The logits: scaled cosine similarities of the features and the class vectors."""
        return self.scale * unit(features) @ unit(head["weight"]).T

    def head_gradient(self, head: Tensors, features: Tensor, slope: Tensor) -> Tensors:
        """The gradient of the loss with respect to the class vectors."""
        weight = head["weight"]
        length = weight.norm(dim=-1, keepdim=True)
        direction = weight / length.clamp(min=EPSILON)
        pull = slope.T @ unit(features)
        turning = pull - (pull * direction).sum(dim=-1, keepdim=True) * direction
        return {"weight": self.scale * turning / length.clamp(min=EPSILON)}


def unit(x: Tensor) -> Tensor:
    """Rows of x scaled to length one; rows of zeros stay zero."""
    return nn.functional.normalize(x, dim=-1, eps=EPSILON)
