"""Matching networks."""

from functools import partial
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.head import adapt_head, embedded_rows, fit_rows, members, queries_and_head
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples

SHORTEST_SQUARED = 1e-12


class MatchingNet(Algorithm):
    """MatchingNet: a vote of the support examples, weighted by similarity in a learned embedding.

    Vinyals, Blundell, Lillicrap, Kavukcuoglu and Wierstra ("Matching networks for one shot learning", NeurIPS 2016,
    arXiv:1606.04080, equation 1 and section 2.1.1): with c the cosine similarity of embeddings,

        p(y = k | x) = sum over i of class k of a(x, x_i),    a(x, x_i) = softmax_i( c(f(x), f(x_i)) / temperature )

    The logit of class k is log sum_{i of class k} exp(c(f(x), f(x_i)) / temperature), so that cross-entropy is exactly
    -log p. A class with more support examples has more votes.

    Departures: one network embeds support and query alike (f = g), without full context embeddings (section 2.1.2):
    they depend on the order of the support set, and the paper uses none on Omniglot. Attention has a temperature, which
    is not in the paper; 1 is without. For batch norm see `head`.

    Example:
        >>> MatchingNet(temperature=0.1).outputs(TaskShape(ways=5)) is None
        True

    Attributes:
        temperature: Temperature of the softmax over the support set; cosines lie in [-1, 1], so that at 1 no support
            example can weigh more than e^2 = 7.4 times another.
    """

    kind: ClassVar[str] = "matchingnet"

    temperature: float = Field(default=1.0, gt=0)

    def outputs(self, task_shape: TaskShape) -> int | None:
        """None, an embedding network, whatever the number of ways."""
        return None

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """The directions of the embedded support examples, which attention compares queries with.

        Under transductive batch norm they are computed once the query set is known.
        """
        return adapt_head(partial(_fit, context), meta, support, context, self.batch_norm)

    def summary(self, meta: Tensors, support: Examples, context: Context, statistics: Tensors) -> Tensors | None:
        """The embeddings of the support examples."""
        return embedded_rows(meta, support, context, self.batch_norm, statistics)

    def adapt_to(self, meta: Tensors, summary: Tensors, context: Context) -> Tensors:
        """The directions of the embeddings in a summary."""
        return fit_rows(partial(_fit, context), summary)

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """Predict logits: the logarithm of the attention-weighted votes for each class."""
        queries, head = queries_and_head(partial(_fit, context), meta, adapted, x, context, self.batch_norm)
        votes = _directions(queries) @ head["directions"].T / self.temperature
        absent = head["members"] == 0
        return votes[:, :, None].masked_fill(absent, -float("inf")).logsumexp(dim=1)


def _fit(context: Context, embedding: Tensor, y: Tensor) -> Tensors:
    return {"directions": _directions(embedding), "members": members(y, context)}


def _directions(embedding: Tensor) -> Tensor:
    """Scaled to length 1; the zero vector stays, as similar to one as to another."""
    return embedding * embedding.square().sum(dim=-1, keepdim=True).clamp_min(SHORTEST_SQUARED).rsqrt()
