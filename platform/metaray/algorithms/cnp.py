"""Conditional neural processes."""

from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm, Outcome
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.embedding import embed, embed_support, embedding_size
from metaray.algorithms.families.prefixes import join, part, without
from metaray.algorithms.growth import SUM, fixed_statistics
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.inputs import Inputs
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.models.batch_norm import normalises_batches
from metaray.phases import phase

ENCODER, DECODER = "encoder:", "decoder:"

Sizes = tuple[Annotated[int, Field(gt=0)], ...]


class CNP(Algorithm):
    """CNP: a support set becomes one vector, and predictions are a function of that vector and the input.

    Garnelo et al. ("Conditional neural processes", ICML 2018, arXiv:1807.01613, equations 1 to 3). With the
    experiment's model as an embedding e(x) and multi-layer perceptrons h and g:

        r_i = h(e(x_i), y_i),    r = mean_i r_i,    phi = g(e(x*), r)

    Where targets are values, phi is the mean and sigma = 0.1 + 0.9 softplus(.) of a Gaussian for each of them (section
    4.1), and the loss is minus its log-density at the query, summed over the values of a target; `predict` gives the
    mean. Where they are classes (section 4.3), h sees no label: r_i = h(e(x_i)) is averaged over each class, r is the
    concatenation of the N means, and phi are the logits. So a learner is fixed to its ways, and the order of the
    classes matters to it.

    Departures: (1) the paper draws the size of the support anew for each function, and its loss covers the support as
    well as the other points (equation 4); here the experiment gives the size, and the loss is on the query alone. (2)
    In the paper inputs reach h and g in networks of their own; here both see the same embedding. (3) There are no
    running averages in batch norm: the support is normalised with its own statistics, the query under `transductive`
    with those of the query batch, under `inductive` with those of the support. (4) In training, where the classes of a
    task have no order of their own, the loss is the mean over the N orders that lead from one to the next by a place
    each: the expectation over tasks is the same, since the sampler's order is as good as any. g sees N times as many
    tasks for next to no more work.

    Example:
        >>> CNP().outputs(TaskShape(ways=5)) is None
        True

    Attributes:
        encoder: Sizes of the hidden layers of h. With a learned embedding e, as of images, no hidden layer may be best:
            h is then linear. With two, r came to vary in a single direction, in which 60% of Omniglot's 5-way 5-shot
            queries are told apart, and stayed so for thousands of episodes.
        representation: Size of each vector r_i.
        decoder: Sizes of the hidden layers of g.
    """

    kind: ClassVar[str] = "cnp"
    needs_classes: ClassVar[bool] = False

    encoder: Sizes = (128, 128)
    representation: int = Field(default=128, gt=0)
    decoder: Sizes = (128, 128)

    @property
    def fixed_ways(self) -> bool:
        """True for classification: the decoder g has one output and one input place for each class."""
        return True

    def outputs(self, task_shape: TaskShape) -> int | None:
        """None, an embedding network: the outputs are those of the decoder g."""
        return None

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """The parameters of e, h and g."""
        size = embedding_size(network, task_shape)
        task, ways = task_shape.task, task_shape.ways
        values = 0 if task.has_classes else task.outputs(ways)
        encoder = perceptron((size + values, *self.encoder, self.representation))
        pooled = size + task.labels(ways) * self.representation
        decoder = perceptron((pooled, *self.decoder, task.distribution_size(ways)))
        return join(super().init(network, task_shape), {ENCODER: encoder, DECODER: decoder})

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """Compute the representation r of the support set.

        Under inductive batch norm the statistics of the support set are returned, too.
        """
        seen, statistics = embed_support(without(meta, ENCODER, DECODER), support.x, context, self.batch_norm)
        pairs = torch.cat([seen, context.task.seen(support.y, seen.dtype)], dim=1)
        r = context.task.pooled(perceive(part(meta, ENCODER), pairs), support.y, context.ways)
        return {"r": r if context.training else r.detach(), **statistics}

    def summary(self, meta: Tensors, support: Examples, context: Context, statistics: Tensors) -> Tensors | None:
        """The sums of the r_i, and the number of examples in each: what the means in r are computed from."""
        pools = context.task.pools(support.y, context.ways, torch.float64)
        if pools is None or (self.batch_norm == "transductive" and normalises_batches(context.network)):
            return None
        seen = embed(without(meta, ENCODER, DECODER), statistics, support.x, context)
        pairs = torch.cat([seen, context.task.seen(support.y, seen.dtype)], dim=1)
        encoded = perceive(part(meta, ENCODER), pairs).to(torch.float64)
        return {SUM + "r": pools.T @ encoded, SUM + "counts": pools.sum(dim=0), **statistics}

    def adapt_to(self, meta: Tensors, summary: Tensors, context: Context) -> Tensors:
        """The representation r from a summary."""
        r = (summary[SUM + "r"] / summary[SUM + "counts"][:, None]).flatten().to(context.loss_dtype)
        return {"r": r, **fixed_statistics(summary)}

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """Predict logits, or the means of the Gaussians."""
        return context.task.expected(self._decoded(meta, adapted, x, context))

    def spread(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor | None:
        """The standard deviations of the Gaussians; None for classification."""
        return context.task.spread(self._decoded(meta, adapted, x, context))

    def loss(self, meta: Tensors, episode: TensorEpisode, context: Context) -> Outcome:
        """Adapt to the support set, then compute the negative log-likelihood of the query set.

        For classes it is the cross-entropy.
        """
        x, y = episode.query
        with phase("inner loop"):
            adapted = self.adapt(meta, episode.support, context)
        with phase("query pass"):
            if context.training and context.task.labels_vary:
                phi = self._in_all_orders(meta, adapted, x, context).to(context.loss_dtype)
                places = (y + torch.arange(context.ways, device=y.device)[:, None]) % context.ways
                loss = context.task.surprise(phi.flatten(0, 1), places.flatten())
                return Outcome(loss, context.score(context.task.expected(phi[0]), y))
            phi = self._decoded(meta, adapted, x, context).to(context.loss_dtype)
            return Outcome(context.task.surprise(phi, y), context.score(context.task.expected(phi), y))

    def _decoded(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """phi of each input."""
        asked = embed(without(meta, ENCODER, DECODER), adapted, x, context)
        r = adapted["r"].expand(len(asked), -1)
        return perceive(part(meta, DECODER), torch.cat([asked, r], dim=1))

    def _in_all_orders(self, meta: Tensors, adapted: Tensors, x: Inputs, context: Context) -> Tensor:
        """[N, n, N] phi of each input; in order s the class of label c stands at place c + s (modulo N)."""
        asked, ways = embed(without(meta, ENCODER, DECODER), adapted, x, context), context.ways
        decoder = part(meta, DECODER)
        of_x, of_r = decoder["0.weight"].split((asked.shape[1], ways * self.representation), dim=1)
        places = torch.arange(ways, device=asked.device)
        ordered = adapted["r"].view(ways, -1)[(places - places[:, None]) % ways].flatten(1)
        # g's first layer is linear: what it makes of x is the same in all orders.
        first = nn.functional.linear(ordered, of_r, decoder["0.bias"])[:, None] + nn.functional.linear(asked, of_x)
        return perceive(decoder, first, done=1)


def perceptron(sizes: tuple[int, ...]) -> Tensors:
    """Parameters of linear layers between `sizes`: Glorot-uniform weights, zero biases."""
    found: Tensors = {}
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        found[f"{i}.weight"] = nn.init.xavier_uniform_(torch.empty(outputs, inputs))
        found[f"{i}.bias"] = torch.zeros(outputs)
    return found


def perceive(parameters: Tensors, x: Tensor, done: int = 0) -> Tensor:
    """Apply the layers of a perceptron, with ReLU between them, after the first `done` layers."""
    for i in range(done, len(parameters) // 2):
        x = nn.functional.linear(x if i == 0 else x.relu(), parameters[f"{i}.weight"], parameters[f"{i}.bias"])
    return x
