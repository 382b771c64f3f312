"""What algorithms share whose network only embeds: the task is then solved among the embedded examples by a head.

A head is fitted to the embedded support set: `fit(embedding [n, E], y)` returns what it learned. The protocol of batch
norm decides when. `inductive`: in `adapt`, the embedding normalised with the statistics of the support set, with which
queries are normalised later. `transductive`: in `predict`, when the queries are known, support and query normalised
together.

Departure of all of them: their authors' batch norm has running averages at test time. Here there are none, the
protocol is the same in training and at test time.
"""

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.embedding import embed, embed_support
from metaray.algorithms.families.inner_loop import split_statistics
from metaray.algorithms.growth import OF_CLASS, ROWS, fixed_statistics
from metaray.episodes.inputs import Inputs, concatenate, flattened, unflattened
from metaray.episodes.tensors import Examples
from metaray.models.batch_norm import Protocol
from metaray.tasks import classes
from metaray.tasks.classes import one_hot

HeadFit = Callable[[Tensor, Tensor], Tensors]
Temperature = Literal["size"] | Annotated[float, Field(gt=0)] | None
"""Divisor of squared distances: a number, the size of the embedding, or None for 1."""


def temperature_of(temperature: Literal["size"] | float, embedding: Tensor) -> float:
    """The number that a temperature stands for among embeddings [n, E]."""
    return float(embedding.shape[-1]) if temperature == "size" else temperature


def adapt_head(fit: HeadFit, theta: Tensors, support: Examples, context: Context, protocol: Protocol) -> Tensors:
    """Fit a head to a support set; or keep the support set, if the protocol needs the query set first.

    `queries_and_head` takes the result.

    Args:
        fit: Function that fits the head to embeddings [n, E] in `context.loss_dtype`.
        theta: Parameters of the network, by name.
        support: Support set of the task.
        context: Circumstances of the call.
        protocol: Batch norm protocol, "inductive" or "transductive".
    """
    if protocol == "transductive":
        return {**flattened(support.x, "support_x"), "support_y": support.y}
    embedding, statistics = embed_support(theta, support.x, context, protocol)
    return {**fit(embedding, support.y), **statistics}


def queries_and_head(
    fit: HeadFit, theta: Tensors, adapted: Tensors, x: Inputs, context: Context, protocol: Protocol
) -> tuple[Tensor, Tensors]:
    """The embedded queries [n, E] in `context.loss_dtype`, and the fitted head; arguments as for `adapt_head`."""
    if protocol == "transductive":
        count = len(adapted["support_y"])
        embedding = embed(theta, {}, concatenate([unflattened(adapted, "support_x"), x]), context)
        return embedding[count:], fit(embedding[:count], adapted["support_y"])
    return embed(theta, adapted, x, context), split_statistics(adapted)[0]


def waiting_support(adapted: Tensors) -> Examples | None:
    """The support set that `adapt_head` kept until the query set is known; None if the head was fitted."""
    if "support_y" not in adapted:
        return None
    return Examples(unflattened(adapted, "support_x"), adapted["support_y"])


def embedded_rows(
    theta: Tensors, support: Examples, context: Context, protocol: Protocol, statistics: Tensors
) -> Tensors | None:
    """A summary that suits every head: the embedded examples; None under the transductive protocol.

    Args:
        theta: Parameters of the network.
        support: The examples.
        context: Circumstances of the call.
        protocol: Batch norm protocol; under "transductive" embeddings depend on the query set.
        statistics: Batch norm statistics, as for `Algorithm.summary`.
    """
    if protocol == "transductive":
        return None
    return {ROWS + "x": embed(theta, statistics, support.x, context), ROWS + "y": support.y, **statistics}


def class_sums(embedding: Tensor, y: Tensor, context: Context) -> Tensors:
    """A summary that says where class means lie: sums and numbers of members, in float64."""
    belongs = members(y, context).to(torch.float64)
    return {OF_CLASS + "sums": belongs.T @ embedding.to(torch.float64), OF_CLASS + "counts": belongs.sum(dim=0)}


def means_of(summary: Tensors, context: Context) -> Tensor:
    """The class means [N, E] of the embedded examples in a summary."""
    return (summary[OF_CLASS + "sums"] / summary[OF_CLASS + "counts"][:, None]).to(context.loss_dtype)


def fit_rows(fit: HeadFit, summary: Tensors) -> Tensors:
    """The head fitted to the embedded examples in a summary, as `adapt_head` returns it."""
    return {**fit(summary[ROWS + "x"], summary[ROWS + "y"]), **fixed_statistics(summary)}


def members(y: Tensor, context: Context) -> Tensor:
    """One-hot labels [n, N] in `context.loss_dtype`."""
    return one_hot(y, context.ways, context.loss_dtype)


def class_means(embedding: Tensor, y: Tensor, context: Context) -> Tensor:
    """[N, E] of an embedded set [n, E] in `context.loss_dtype`; classes may differ in size."""
    return classes.class_means(embedding, y, context.ways)


def with_bias(embedding: Tensor) -> Tensor:
    """Embeddings with a column of ones appended, for an intercept: [n, E] to [n, E + 1]."""
    return torch.cat([embedding, torch.ones_like(embedding[:, :1])], dim=1)
