"""Relation networks."""

import math
from functools import cache, partial
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm, Outcome
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.embedding import embedding_size
from metaray.algorithms.families.head import adapt_head, embedded_rows, fit_rows, members, queries_and_head
from metaray.algorithms.families.prefixes import join, part, without
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.errors import InputError
from metaray.models.batch_norm import EpisodicBatchNorm
from metaray.models.model import initialize
from metaray.phases import phase

RELATION = "relation:"
STATISTICS = "relation_statistics:"
FC_SIZE = 8


class RelationNet(Algorithm):
    """RelationNet: a learned comparison of each query with each class.

    Sung, Yang, Zhang, Xiang, Torr and Hospedales ("Learning to compare: relation network for few-shot learning", CVPR
    2018, arXiv:1711.06025): with C the concatenation of feature maps along channels and g the relation module,

        r_k(x) = g( C( sum of f(x_i) over the support examples of class k, f(x) ) )         (equation 1)
        minimise the mean over queries and classes of (r_k(x) - 1[y = k])^2                 (equation 2)

    g has two blocks of 3x3 convolution, batch norm, ReLU and 2x2 max-pooling, then fully connected layers of size 8
    with ReLU and 1 with a sigmoid (section 3.4). `predict` gives log r_k, so that their softmax is r_k over the sum of
    all r.

    The paper's embedding keeps 64 feature maps: take `Conv4(pools=2)` and `channels=64`. An embedding of E numbers is
    then seen as maps of side s, E = channels * s * s. By default embeddings are vectors, of any network, and the blocks
    of g linear layers of width E with batch norm and ReLU.

    Departures: maps smaller than 2x2 are not pooled any more. Layers before a batch norm have no bias, which would have
    no effect. Weights start as everywhere in metaray (`initialize`), not from the authors' Gaussians; biases of the
    fully connected layers at 1, as theirs. Batch norm has no running averages: for the embedding see `head`; g
    normalises over all pairs of a query and a class under `transductive`, and with the statistics of all pairs of a
    support example and a class under `inductive`.

    Example:
        >>> RelationNet().outputs(TaskShape(ways=5)) is None
        True

    Attributes:
        channels: Number of feature maps in the embedding (the last feature maps of the model), and in g's blocks; None
            compares embeddings as vectors.
    """

    kind: ClassVar[str] = "relationnet"

    channels: int | None = Field(default=None, gt=0)

    def outputs(self, task_shape: TaskShape) -> int | None:
        """None, an embedding network, whatever the number of ways."""
        return None

    def heeds_batch(self, network: nn.Module) -> bool:
        """Whether batch norm is transductive: g always contains batch norm, whatever the network."""
        return self.batch_norm == "transductive"

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """The parameters of the network and of the relation module g.

        Raises:
            InputError: If the embedding does not consist of `channels` square feature maps of at least 2x2.
        """
        g = _relation(*self._map_shape(embedding_size(network, task_shape)))
        initialize(g)
        for layer in g:
            if isinstance(layer, nn.Linear) and layer.bias is not None:
                nn.init.ones_(layer.bias)
        own = {name: parameter.detach().clone() for name, parameter in g.named_parameters()}
        return join(super().init(network, task_shape), {RELATION: own})

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """The class features [N, E], and the batch norm statistics of g.

        Under transductive batch norm they are computed once the query set is known.
        """
        fit = partial(self._fit, meta, context)
        return adapt_head(fit, without(meta, RELATION), support, context, self.batch_norm)

    def summary(self, meta: Tensors, support: Examples, context: Context, statistics: Tensors) -> Tensors | None:
        """The embeddings of the support examples: the statistics of g need all pairs of an example and a class."""
        return embedded_rows(without(meta, RELATION), support, context, self.batch_norm, statistics)

    def adapt_to(self, meta: Tensors, summary: Tensors, context: Context) -> Tensors:
        """The class features and the statistics of g from a summary."""
        return fit_rows(partial(self._fit, meta, context), summary)

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """Predict logits: the logarithms of the relation scores r_k."""
        fit, theta = partial(self._fit, meta, context), without(meta, RELATION)
        queries, head = queries_and_head(fit, theta, adapted, x, context, self.batch_norm)
        statistics = part(head, STATISTICS)
        scores = self._compare(self._module(queries), meta, head["features"], queries, context, statistics)
        return nn.functional.logsigmoid(scores)

    def loss(self, meta: Tensors, episode: TensorEpisode, context: Context) -> Outcome:
        """The mean squared error of the relation scores, with the accuracy as score."""
        with phase("inner loop"):
            adapted = self.adapt(meta, episode.support, context)
        with phase("query pass"):
            logits = self.predict(meta, adapted, episode.query.x, context)
            error = logits.exp() - members(episode.query.y, context)
            return Outcome(error.square().mean(), context.score(logits, episode.query.y))

    def _fit(self, meta: Tensors, context: Context, embedding: Tensor, y: Tensor) -> Tensors:
        features = members(y, context).T @ embedding
        if self.batch_norm == "transductive":
            return {"features": features}
        g = self._module(embedding)
        _, statistics = context.call_recording(g, part(meta, RELATION), self._pairs(features, embedding))
        return {"features": features, **{STATISTICS + name: value for name, value in statistics.items()}}

    def _compare(
        self,
        g: nn.Module,
        meta: Tensors,
        features: Tensor,
        others: Tensor,
        context: Context,
        statistics: Tensors | None = None,
    ) -> Tensor:
        """g before its sigmoid [n, N], for class features [N, E] and embedded examples [n, E]."""
        output = context.call(g, part(meta, RELATION), self._pairs(features, others), statistics)
        return output.view(len(others), len(features)).to(context.loss_dtype)

    def _pairs(self, features: Tensor, others: Tensor) -> Tensor:
        """Each class beside each example, [n * N, ...]."""
        shape = self._map_shape(features.shape[1])
        wide = (len(others), len(features), *shape)
        parts = [features.view(-1, *shape).expand(wide), others.view(-1, 1, *shape).expand(wide)]
        return torch.cat(parts, dim=2).flatten(0, 1)

    def _map_shape(self, size: int) -> tuple[int, ...]:
        """Shape of an embedding of so many numbers: (channels, side, side), or (size,) where vectors are compared."""
        if self.channels is None:
            return (size,)
        side = math.isqrt(size // self.channels)
        if side < 2 or side * side * self.channels != size:
            raise InputError(
                f"relationnet: an embedding of {size} numbers is not {self.channels} square feature maps of at least "
                "2x2; set channels to the model's own number of last feature maps, or to null to compare vectors"
            )
        return self.channels, side, side

    def _module(self, embedding: Tensor) -> nn.Sequential:
        """g for such embeddings, with no weights of its own: it neither draws random numbers nor takes memory."""
        return _weightless(*self._map_shape(embedding.shape[1]))


class _Linear(nn.Linear):
    """Leaves its weights as they lie in memory: they are drawn by `init`, and given by callers elsewhere."""

    def reset_parameters(self) -> None:
        pass


class _Conv2d(nn.Conv2d):
    """See `_Linear`."""

    def reset_parameters(self) -> None:
        pass


@cache
def _weightless(size: int, *sides: int) -> nn.Sequential:
    """The same one each time, so that what is known of it by its identity stays known."""
    with torch.device("meta"):
        return _relation(size, *sides)


def _relation(size: int, *sides: int) -> nn.Sequential:
    """The relation module g for features of shape (size, *sides), without its sigmoid."""
    layers: list[nn.Module] = []
    side = sides[0] if sides else 1
    for inputs in (2 * size, size):
        layer = _Conv2d(inputs, size, 3, padding=1, bias=False) if sides else _Linear(inputs, size, bias=False)
        layers += [layer, EpisodicBatchNorm(size), nn.ReLU()]
        if side >= 2:
            layers.append(nn.MaxPool2d(2))
            side //= 2
    return nn.Sequential(*layers, nn.Flatten(), _Linear(size * side * side, FC_SIZE), nn.ReLU(), _Linear(FC_SIZE, 1))
