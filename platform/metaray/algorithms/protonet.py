"""Prototypical networks."""

from functools import partial
from typing import ClassVar

from torch import Tensor

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.head import adapt_head, class_means, queries_and_head
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples


class ProtoNet(Algorithm):
    """ProtoNet: classify by the nearest class mean in a learned embedding.

    Snell, Swersky and Zemel ("Prototypical networks for few-shot learning", NeurIPS 2017, arXiv:1703.05175):

        c_k = mean of f(x) over the support examples of class k            (equation 1)
        p(y = k | x) = softmax_k( -||f(x) - c_k||^2 )                       (equation 2)

    Departure: the authors' batch norm uses the statistics of support and query together in training and running
    averages at test time. Here there are no running averages: `transductive` uses those of support and query together
    always, `inductive` those of the support set always.

    Example:
        >>> ProtoNet().outputs(TaskShape(ways=5)) is None
        True
    """

    kind: ClassVar[str] = "protonet"

    def outputs(self, task_shape: TaskShape) -> int | None:
        """An embedding network, whatever the ways."""
        return None

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """The prototypes [N, embedding]; under transductive batch norm they wait for the query to be known."""
        return adapt_head(partial(_fit, context), meta, support, context, self.batch_norm)

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """Minus the squared Euclidean distances to the prototypes."""
        queries, head = queries_and_head(partial(_fit, context), meta, adapted, x, context, self.batch_norm)
        difference = queries[:, None] - head["prototypes"]
        return -difference.square().sum(dim=-1)


def _fit(context: Context, embedding: Tensor, y: Tensor) -> Tensors:
    return {"prototypes": class_means(embedding, y, context)}
