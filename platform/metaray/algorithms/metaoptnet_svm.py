"""MetaOptNet with a support vector machine as its head."""

from functools import partial
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.head import adapt_head, embedded_rows, fit_rows, members, queries_and_head
from metaray.algorithms.families.prefixes import join, without
from metaray.algorithms.families.quadratic_program import solve_quadratic_program
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples

SVM = "svm:"
SCALE = SVM + "scale"


class MetaOptNetSVM(Algorithm):
    """MetaOptNet-SVM: a multi-class support vector machine in a learned embedding, differentiated through.

    Lee, Maji, Ravichandran and Soatto ("Meta-learning with differentiable convex optimization", CVPR 2019,
    arXiv:1904.03758, section 3.2) take the machine of Crammer and Singer (JMLR 2001). For embedded support examples
    f_i of class y_i its dual is

        max_a  -1/2 sum_k ||w_k||^2 + sum_i a_i[y_i],    w_k = sum_i a_i[k] f_i
        such that  a_i[y_i] <= C,  a_i[k] <= 0 for k != y_i,  sum_k a_i[k] = 0

    and logits are gamma <w_k, f(x)>, with a meta-learned scale gamma (section 3.3). Like the authors' code, which says
    it helps the solver, this adds `ridge` / 2 ||a||^2 to the minimised: it makes the solution unique.

    Departures: the authors' solver works in float32 and stops as soon as it has converged; for this one see
    `solve_quadratic_program`. Their option of label smoothing is left out. For batch norm see `head`.

    Example:
        >>> MetaOptNetSVM(regularizer=1.0).outputs(TaskShape(ways=5)) is None
        True

    Attributes:
        regularizer: Penalty C of a violated margin.
        ridge: Number added to the diagonal of the kernel matrix.
        iterations: Number of iterations of the solver.
        initial_scale: Scale gamma before the first outer step.
    """

    kind: ClassVar[str] = "metaoptnet_svm"

    regularizer: float = Field(default=0.1, gt=0)
    ridge: float = Field(default=1.0, gt=0)
    iterations: int = Field(default=15, ge=1)
    initial_scale: float = Field(default=1.0, gt=0)

    def outputs(self, task_shape: TaskShape) -> int | None:
        """None, an embedding network, whatever the number of ways."""
        return None

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """The network's parameters and the scale gamma."""
        return join(super().init(network, task_shape), {SVM: {"scale": torch.tensor(self.initial_scale)}})

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """The class weights w_k, as the columns of a matrix.

        Under transductive batch norm they are computed once the query set is known.
        """
        return adapt_head(partial(self._fit, context), without(meta, SVM), support, context, self.batch_norm)

    def summary(self, meta: Tensors, support: Examples, context: Context, statistics: Tensors) -> Tensors | None:
        """The embeddings of the support examples."""
        return embedded_rows(without(meta, SVM), support, context, self.batch_norm, statistics)

    def adapt_to(self, meta: Tensors, summary: Tensors, context: Context) -> Tensors:
        """The class weights w_k of the support vector machine fitted to the embeddings in a summary."""
        return fit_rows(partial(self._fit, context), summary)

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """Predict the logits gamma <w_k, f(x)>."""
        fit, theta = partial(self._fit, context), without(meta, SVM)
        queries, head = queries_and_head(fit, theta, adapted, x, context, self.batch_norm)
        return meta[SCALE] * (queries @ head["weights"])

    def _fit(self, context: Context, embedding: Tensor, y: Tensor) -> Tensors:
        x = embedding.to(torch.float64)
        quadratic = x @ x.T + self.ridge * torch.eye(len(y), dtype=x.dtype, device=x.device)
        own = members(y, context).T
        duals = solve_quadratic_program(quadratic, -own, self.regularizer * own, iterations=self.iterations)
        return {"weights": (duals @ x).T.to(embedding.dtype)}
