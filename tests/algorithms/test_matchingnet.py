"""MatchingNet by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from metaray.algorithms import MatchingNet
from metaray.algorithms.context import Context
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.errors import InputError
from metaray.models import MLP
from metaray.models.model import build_seeded

MakeEpisode = Callable[..., TensorEpisode]


def context_of() -> Context:
    network = build_seeded(MLP(hidden=(6,), batch_norm=False), (1, 2, 2), None, seed=1).double()
    return Context(network=network, ways=3, training=True)


def logits_of(algorithm: MatchingNet, support: Examples, x: Tensor, context: Context) -> Tensor:
    meta = algorithm.init(context.network, TaskShape())
    return algorithm.predict(meta, algorithm.adapt(meta, support, context), x, context)


def votes(context: Context, support: Examples, x: Tensor, temperature: float) -> Tensor:
    """p(y | x) of equation 1, example by example."""
    embedded, queries = context.network(support.x), context.network(x)
    result = torch.zeros(len(x), context.ways, dtype=torch.float64)
    for i in range(len(x)):
        cosines = [nn.functional.cosine_similarity(queries[i], one, dim=0) for one in embedded]
        attention = (torch.stack(cosines) / temperature).softmax(dim=0)
        for weight, label in zip(attention, support.y, strict=True):
            result[i, label] += weight
    return result


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_probabilities_are_votes(temperature: float, make_episode: MakeEpisode) -> None:
    context, episode, algorithm = context_of(), make_episode(shots=3), MatchingNet(temperature=temperature)
    uneven = Examples(episode.support.x[2:-1], episode.support.y[2:-1])
    expected = votes(context, uneven, episode.query.x, temperature)
    found = logits_of(algorithm, uneven, episode.query.x, context)
    torch.testing.assert_close(found.softmax(dim=1), expected)
    loss = algorithm.loss(algorithm.init(context.network, TaskShape()), episode._replace(support=uneven), context).loss
    own = expected.gather(1, episode.query.y[:, None])
    torch.testing.assert_close(loss, -own.log().mean())


def test_by_hand() -> None:
    context = Context(network=nn.Identity(), ways=2)
    support = Examples(torch.tensor([[2.0, 0.0], [0.0, 3.0], [0.0, -1.0]]), torch.tensor([0, 1, 1]))
    found = logits_of(MatchingNet(batch_norm="inductive"), support, torch.tensor([[5.0, 0.0]]), context)
    torch.testing.assert_close(found, torch.tensor([[1.0, math.log(2)]]))


def test_an_embedding_of_zero_is_like_all_others() -> None:
    context = Context(network=nn.Identity(), ways=2)
    support = Examples(torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 1]))
    x = torch.zeros(1, 2, requires_grad=True)
    found = logits_of(MatchingNet(batch_norm="inductive"), support, x, context)
    assert found.tolist() == [[0, 0]]
    (gradient,) = torch.autograd.grad(found[0, 0], x)
    assert gradient.isfinite().all()


def test_ways_are_free_and_wrong_fields_are_refused() -> None:
    assert MatchingNet().outputs(TaskShape(ways=7)) is None
    with pytest.raises(InputError, match=r"temperature: .*greater than 0 \(got 0\)"):
        MatchingNet.parse({"temperature": 0}, where="algorithm")
