"""Ridge regression differentiable discriminator."""

import math
from functools import partial
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.embedding import embed, embedding_size
from metaray.algorithms.families.head import adapt_head, queries_and_head, with_bias
from metaray.algorithms.families.prefixes import join, without
from metaray.algorithms.families.ridge import COUNT, X, Y, ridge_joined, ridge_summary, ridge_weights
from metaray.algorithms.growth import fixed_statistics
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples
from metaray.errors import InputError
from metaray.tasks import TaskKind

RIDGE = "ridge:"
LOG_REGULARIZER, SCALE, PRIOR = RIDGE + "log_regularizer", RIDGE + "scale", RIDGE + "prior"


class R2D2(Algorithm):
    """R2D2: ridge regression in a learned embedding, solved in closed form and differentiated through.

    Bertinetto, Henriques, Torr and Vedaldi ("Meta-learning with differentiable closed-form solvers", ICLR 2019,
    arXiv:1805.08136, section 3): with X the embedded support set, Y its one-hot labels and X' the embedded queries,

        W = X^T (X X^T + lambda I)^-1 Y         (the Woodbury form)
        logits = alpha X' W + beta

    where lambda, alpha and beta are meta-learned together with the network. Where targets are values, Y holds them.

    Departures: lambda is learned as its logarithm, so that it stays positive. beta is left out: it is one number for
    all classes, which a softmax does not see. Values have no alpha either: the fit is on the scale of the targets
    already. X and X' get a column of ones, as in the authors' code, so that there is an intercept; that code also
    multiplies lambda by the number of support examples, the paper and the default here do not. For batch norm see
    `head`. Logits do not grow with the size of the embedding: with a larger one, W gets smaller.

    With `prior`, W is drawn towards meta-learned weights W_0 instead of 0, as in ALPaCA (Harrison, Sharma and Pavone,
    "Meta-learning priors for efficient online Bayesian regression", WAFR 2018, arXiv:1807.08912, with one lambda):

        W = W_0 + X^T (X X^T + lambda I)^-1 (Y - X W_0)

    so that the support decides how a task differs from what all have in common. W_0 is 0 before the first outer step.

    Example:
        >>> R2D2(initial_regularizer=1.0).outputs(TaskShape(ways=5)) is None
        True

    Attributes:
        initial_regularizer: Strength lambda of the regularisation before the first outer step; 50 is the value in the
            authors' code.
        initial_scale: Scale alpha before the first outer step.
        per_example: Whether to multiply lambda by the number of support examples.
        prior: Whether to meta-learn W_0; only for regression, or for labels that mean the same in all tasks.
    """

    kind: ClassVar[str] = "r2d2"
    needs_classes: ClassVar[bool] = False
    left_out_of_json: ClassVar[tuple[str, ...]] = ("per_example", "prior")

    initial_regularizer: float = Field(default=50.0, gt=0)
    initial_scale: float = Field(default=10.0, gt=0)
    per_example: bool = False
    prior: bool = False

    def check_task(self, task: TaskKind) -> None:
        """See `Algorithm.check_task`; labels that stand for another class in each task have no prior."""
        super().check_task(task)
        if self.prior and task.labels_vary:
            raise InputError(f"algorithm {self.kind}: prior=True is of outputs that mean the same in all {task}")

    def outputs(self, task_shape: TaskShape) -> int | None:
        """None, an embedding network, whatever the number of ways."""
        return None

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """The network's parameters, the logarithm of lambda, and for classes the scale alpha."""
        own = {"log_regularizer": torch.tensor(math.log(self.initial_regularizer))}
        if task_shape.task.free_scale:
            own["scale"] = torch.tensor(self.initial_scale)
        if self.prior:
            outputs = task_shape.task.outputs(task_shape.ways)
            own["prior"] = torch.zeros(embedding_size(network, task_shape) + 1, outputs)
        return join(super().init(network, task_shape), {RIDGE: own})

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """The regression weights W.

        Under transductive batch norm they are computed once the query set is known.
        """
        return adapt_head(partial(self._fit, meta, context), without(meta, RIDGE), support, context, self.batch_norm)

    def summary(self, meta: Tensors, support: Examples, context: Context, statistics: Tensors) -> Tensors | None:
        """X and Y, reduced to at most as many rows as X has columns."""
        if self.batch_norm == "transductive":
            return None
        x = with_bias(embed(without(meta, RIDGE), statistics, support.x, context))
        return ridge_summary(x, context.task.aims(support.y, context.ways, context.loss_dtype)) | statistics

    def joined(self, before: Tensors, further: Tensors) -> Tensors:
        """See `ridge_joined`."""
        return ridge_joined(before, further)

    def adapt_to(self, meta: Tensors, summary: Tensors, context: Context) -> Tensors:
        """The regression weights W from a summary."""
        weights = self._weights(meta, summary[X], summary[Y], summary[COUNT])
        return {"weights": weights.to(context.loss_dtype), **fixed_statistics(summary)}

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """Predict the logits alpha X' W, or in regression the values X' W."""
        fit, theta = partial(self._fit, meta, context), without(meta, RIDGE)
        queries, head = queries_and_head(fit, theta, adapted, x, context, self.batch_norm)
        output = with_bias(queries) @ head["weights"]
        return meta[SCALE] * output if context.task.free_scale else output

    def _fit(self, meta: Tensors, context: Context, embedding: Tensor, y: Tensor) -> Tensors:
        aims = context.task.aims(y, context.ways, context.loss_dtype)
        return {"weights": self._weights(meta, with_bias(embedding), aims, len(y))}

    def _weights(self, meta: Tensors, x: Tensor, aims: Tensor, count: int | Tensor) -> Tensor:
        """W for X and Y, of so many examples."""
        regularizer = meta[LOG_REGULARIZER].exp()
        if self.per_example:
            regularizer = regularizer * count
        if not self.prior:
            return ridge_weights(x, aims, regularizer)
        prior = meta[PRIOR].to(x.dtype)
        return prior + ridge_weights(x, aims - x @ prior, regularizer)
