"""Embeddings under both protocols."""

from collections.abc import Callable

import torch

from metaray.algorithms.context import Context
from metaray.algorithms.families.embedding import embed, embed_support, embedding_size
from metaray.episodes.tensors import TensorEpisode
from metaray.models import MLP, Conv4
from metaray.models.model import build_seeded


def test_the_size_of_an_embedding() -> None:
    assert embedding_size(build_seeded(MLP(hidden=(6,)), (1, 2, 2), None, seed=0), (1, 2, 2)) == 6
    assert embedding_size(build_seeded(Conv4(channels=3), (1, 32, 32), None, seed=0), (1, 32, 32)) == 12


def test_which_statistics_normalise_what(make_episode: Callable[..., TensorEpisode]) -> None:
    network = build_seeded(MLP(hidden=(6,)), (1, 2, 2), None, seed=1).double()
    context, theta = Context(network=network, ways=3), dict(network.named_parameters())
    support, query = (side.x for side in make_episode()[:2])
    own, none = embed_support(theta, support, context, "transductive")
    same, statistics = embed_support(theta, support, context, "inductive")
    assert none == {} and torch.equal(own, same) and torch.equal(own, network(support))
    assert torch.equal(embed(theta, none, query, context), network(query))
    torch.testing.assert_close(embed(theta, statistics, support, context), own)
    torch.testing.assert_close(
        embed(theta, statistics, query[:1], context), embed(theta, statistics, query, context)[:1]
    )
