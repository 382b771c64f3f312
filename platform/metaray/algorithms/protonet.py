"""Prototypical networks."""

from typing import ClassVar

import torch
from torch import Tensor

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.problem import Problem
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
        >>> ProtoNet().outputs(Problem(ways=5)) is None
        True
    """

    kind: ClassVar[str] = "protonet"

    def outputs(self, problem: Problem) -> int | None:
        """An embedding network, whatever the ways."""
        return None

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """The prototypes [N, embedding]; under transductive batch norm they wait for the query to be known."""
        if self.batch_norm == "transductive":
            return {"support_x": support.x, "support_y": support.y}
        embedding, statistics = context.forward_recording(meta, support.x)
        return {"prototypes": _prototypes(embedding, support.y, context), **statistics}

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """Minus the squared Euclidean distances to the prototypes."""
        if self.batch_norm == "transductive":
            count = len(adapted["support_x"])
            embedding = context.forward(meta, torch.cat([adapted["support_x"], x]))
            prototypes, queries = _prototypes(embedding[:count], adapted["support_y"], context), embedding[count:]
        else:
            prototypes = adapted["prototypes"]
            statistics = {name: value for name, value in adapted.items() if name != "prototypes"}
            queries = context.forward(meta, x, statistics)
        difference = queries.to(context.loss_dtype)[:, None] - prototypes
        return -difference.square().sum(dim=-1)


def _prototypes(embedding: Tensor, y: Tensor, context: Context) -> Tensor:
    """Class means [N, embedding] of an embedded support set; classes may differ in size."""
    members = torch.nn.functional.one_hot(y, context.ways).to(context.loss_dtype)
    return (members.T @ embedding.to(context.loss_dtype)) / members.sum(dim=0)[:, None]
