"""MetaOptNet with a ridge regression head."""

from functools import partial
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.embedding import embed
from metaray.algorithms.families.head import adapt_head, queries_and_head, with_bias
from metaray.algorithms.families.prefixes import join, without
from metaray.algorithms.families.ridge import X, Y, ridge_joined, ridge_summary, ridge_weights
from metaray.algorithms.growth import fixed_statistics
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples

RIDGE = "ridge:"
SCALE = RIDGE + "scale"


class MetaOptNetRidge(Algorithm):
    """MetaOptNet-RR: one-against-rest ridge regression of fixed strength in a learned embedding.

    Lee, Maji, Ravichandran and Soatto ("Meta-learning with differentiable convex optimization", CVPR 2019,
    arXiv:1904.03758) fit linear classifiers to the embedded support set by the dual of their training problem. That of
    ridge regression, in the authors' code with lambda = 50, is for each class k with one-hot labels y_k

        min_a 1/2 ||X^T a||^2 + lambda/2 ||a||^2 - 2 y_k^T a,   so   a_k = 2 (X X^T + lambda I)^-1 y_k,   w_k = X^T a_k

    and logits are gamma <w_k, f(x)>, with a meta-learned scale gamma (section 3.3).

    Departures: the authors solve this by a generic quadratic program solver, here it is solved in closed form, which is
    the same. For targets that are values, which the paper has not, a = (X X^T + lambda I)^-1 y without the 2, with a
    column of ones appended to embeddings for an intercept, and gamma scales predictions. For batch norm see `head`.

    Example:
        >>> MetaOptNetRidge().regularizer
        50.0

    Attributes:
        regularizer: Strength lambda of the regularisation.
        initial_scale: Scale gamma before the first outer step.
    """

    kind: ClassVar[str] = "metaoptnet_ridge"
    needs_classes: ClassVar[bool] = False

    regularizer: float = Field(default=50.0, gt=0)
    initial_scale: float = Field(default=1.0, gt=0)

    def outputs(self, task_shape: TaskShape) -> int | None:
        """None, an embedding network, whatever the number of ways."""
        return None

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """The network's parameters and the scale gamma."""
        return join(super().init(network, task_shape), {RIDGE: {"scale": torch.tensor(self.initial_scale)}})

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """The class weights w_k, as the columns of a matrix.

        Under transductive batch norm they are computed once the query set is known.
        """
        return adapt_head(partial(self._fit, context), without(meta, RIDGE), support, context, self.batch_norm)

    def summary(self, meta: Tensors, support: Examples, context: Context, statistics: Tensors) -> Tensors | None:
        """X and the regression targets of its rows, reduced to at most as many rows as X has columns."""
        if self.batch_norm == "transductive":
            return None
        x = _features(embed(without(meta, RIDGE), statistics, support.x, context), context)
        return ridge_summary(x, _aims(support.y, context)) | statistics

    def joined(self, before: Tensors, further: Tensors) -> Tensors:
        """See `ridge_joined`."""
        return ridge_joined(before, further)

    def adapt_to(self, meta: Tensors, summary: Tensors, context: Context) -> Tensors:
        """The class weights w_k from a summary, as the columns of a matrix."""
        weights = ridge_weights(summary[X], summary[Y], self.regularizer)
        return {"weights": weights.to(context.loss_dtype), **fixed_statistics(summary)}

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """Predict the logits gamma <w_k, f(x)>, or values in regression."""
        fit, theta = partial(self._fit, context), without(meta, RIDGE)
        queries, head = queries_and_head(fit, theta, adapted, x, context, self.batch_norm)
        return meta[SCALE] * (_features(queries, context) @ head["weights"])

    def _fit(self, context: Context, embedding: Tensor, y: Tensor) -> Tensors:
        return {"weights": ridge_weights(_features(embedding, context), _aims(y, context), self.regularizer)}


def _aims(y: Tensor, context: Context) -> Tensor:
    """Twice the one-hot labels, or the values."""
    aims = context.task.aims(y, context.ways, context.loss_dtype)
    return 2 * aims if context.task.free_scale else aims


def _features(embedding: Tensor, context: Context) -> Tensor:
    return embedding if context.task.free_scale else with_bias(embedding)
