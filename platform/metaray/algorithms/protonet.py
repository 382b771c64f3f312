"""Prototypical networks."""

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.embedding import embed
from metaray.algorithms.families.head import (
    Temperature,
    adapt_head,
    class_means,
    class_sums,
    means_of,
    queries_and_head,
    temperature_of,
)
from metaray.algorithms.families.prefixes import join, without
from metaray.algorithms.growth import fixed_statistics
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples

DISTANCE = "distance:"
SCALE = DISTANCE + "scale"


class ProtoNet(Algorithm):
    """ProtoNet: classify by the nearest class mean in a learned embedding.

    Snell, Swersky and Zemel ("Prototypical networks for few-shot learning", NeurIPS 2017, arXiv:1703.05175):

        c_k = mean of f(x) over the support examples of class k            (equation 1)
        p(y = k | x) = softmax_k( -s ||f(x) - c_k||^2 / T )                 (equation 2)

    The paper has no s and no T, and so do the defaults: squared distances grow with the size of the embedding, to
    thousands on a ResNet-12 flattened, where the softmax starts all but certain, and wrong. `temperature="size"`
    divides them by the number of the embedding's values, as Lee et al. (MetaOptNet) and others do, who meta-learn s,
    too; Ye et al. (FEAT) have T = 64; Oreshkin et al. (TADAM) meta-learn s.

    Departure: the authors' batch norm uses the statistics of support and query together in training and running
    averages at test time. Here there are no running averages: `transductive` uses those of support and query together
    always, `inductive` those of the support set always.

    Example:
        >>> ProtoNet().outputs(TaskShape(ways=5)) is None
        True

    Attributes:
        temperature: Temperature T: a number, or "size" for the size of the embedding; None is 1.
        learned_scale: Whether the scale s, which starts at 1, is meta-learned; otherwise it stays 1.
    """

    kind: ClassVar[str] = "protonet"
    left_out_of_json: ClassVar[tuple[str, ...]] = ("temperature", "learned_scale")

    temperature: Temperature = None
    learned_scale: bool = False

    def outputs(self, task_shape: TaskShape) -> int | None:
        """None, an embedding network, whatever the number of ways."""
        return None

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """The network's parameters, and the scale s if it is meta-learned."""
        own = {"scale": torch.tensor(1.0)} if self.learned_scale else {}
        return join(super().init(network, task_shape), {DISTANCE: own})

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """The prototypes [N, embedding].

        Under transductive batch norm they are computed once the query set is known.
        """
        theta = without(meta, DISTANCE)
        return adapt_head(partial(_fit, context), theta, support, context, self.batch_norm)

    def summary(self, meta: Tensors, support: Examples, context: Context, statistics: Tensors) -> Tensors | None:
        """The sum of the embeddings of each class, and the number of its examples."""
        if self.batch_norm == "transductive":
            return None
        embedding = embed(without(meta, DISTANCE), statistics, support.x, context)
        return class_sums(embedding, support.y, context) | statistics

    def adapt_to(self, meta: Tensors, summary: Tensors, context: Context) -> Tensors:
        """The prototypes [N, embedding] from a summary."""
        return {"prototypes": means_of(summary, context), **fixed_statistics(summary)}

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """Predict logits: minus the scaled squared Euclidean distances to the prototypes."""
        fit, theta = partial(_fit, context), without(meta, DISTANCE)
        queries, head = queries_and_head(fit, theta, adapted, x, context, self.batch_norm)
        difference = queries[:, None] - head["prototypes"]
        logits = -difference.square().sum(dim=-1)
        if self.temperature is not None:
            logits = logits / temperature_of(self.temperature, queries)
        return meta[SCALE] * logits if self.learned_scale else logits


def _fit(context: Context, embedding: Tensor, y: Tensor) -> Tensors:
    return {"prototypes": class_means(embedding, y, context)}
