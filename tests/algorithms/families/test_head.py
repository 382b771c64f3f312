"""Heads on embeddings: when they are fitted, and with which statistics of batch norm."""

from collections.abc import Callable

import torch
from torch import Tensor

from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.head import adapt_head, members, queries_and_head, with_bias
from metaray.episodes.tensors import TensorEpisode
from metaray.models import MLP
from metaray.models.batch_norm import given, recording
from metaray.models.model import build_seeded

MakeEpisode = Callable[..., TensorEpisode]


def fit(embedding: Tensor, y: Tensor) -> Tensors:
    return {"embedding": embedding, "y": y}


def context_and_parameters() -> tuple[Context, Tensors]:
    network = build_seeded(MLP(hidden=(6,)), (1, 2, 2), None, seed=1).double()
    return Context(network=network, ways=3), {name: p.detach() for name, p in network.named_parameters()}


def test_transductive_waits_and_normalises_together(make_episode: MakeEpisode) -> None:
    (context, theta), episode = context_and_parameters(), make_episode()
    adapted = adapt_head(fit, theta, episode.support, context, "transductive")
    queries, head = queries_and_head(fit, theta, adapted, episode.query.x, context, "transductive")
    together = context.network(torch.cat([episode.support.x, episode.query.x]))
    torch.testing.assert_close(torch.cat([head["embedding"], queries]), together)
    assert torch.equal(head["y"], episode.support.y)


def test_inductive_normalises_queries_like_the_support(make_episode: MakeEpisode) -> None:
    (context, theta), episode = context_and_parameters(), make_episode()
    adapted = adapt_head(fit, theta, episode.support, context, "inductive")
    queries, head = queries_and_head(fit, theta, adapted, episode.query.x, context, "inductive")
    with recording(context.network) as statistics:
        support = context.network(episode.support.x)
    torch.testing.assert_close(head["embedding"], support)
    with given(context.network, statistics):
        torch.testing.assert_close(queries, context.network(episode.query.x))
    assert head.keys() == {"embedding", "y"}


def test_members_and_bias() -> None:
    context, _ = context_and_parameters()
    assert members(torch.tensor([2, 0]), context).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert members(torch.tensor([0]), context).dtype == torch.float64
    assert with_bias(torch.tensor([[5.0, 6.0]])).tolist() == [[5, 6, 1]]
