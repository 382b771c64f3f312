"""RelationNet against a plain implementation; feature maps and vectors; its own batch norm."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from metaray.algorithms import RelationNet
from metaray.algorithms.algorithm import start
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.errors import InputError
from metaray.models import MLP, Conv4, Model
from metaray.models.batch_norm import Protocol

MakeEpisode = Callable[..., TensorEpisode]

MAPS = Conv4(channels=4, pools=2)
CASES = [(MAPS, (1, 12, 12)), (MAPS, (1, 28, 28)), (MAPS, (1, 8, 8)), (MLP(hidden=(5,)), (1, 2, 2))]
every_case = pytest.mark.parametrize(("model", "feature"), CASES, ids=["3x3", "7x7", "2x2", "vectors"])
every_protocol = pytest.mark.parametrize("protocol", ["transductive", "inductive"])


def bench(
    model: Model, feature: tuple[int, ...], protocol: Protocol = "transductive"
) -> tuple[RelationNet, Tensors, Context]:
    algorithm = RelationNet(channels=4 if isinstance(model, Conv4) else None, batch_norm=protocol)
    network, meta = start(algorithm, model, TaskShape(feature, 3), seed=1)
    meta = {name: tensor.double().requires_grad_() for name, tensor in meta.items()}
    return algorithm, meta, Context(network=network.double(), ways=3, training=True)


def logits_of(algorithm: RelationNet, meta: Tensors, support: Examples, x: Tensor, context: Context) -> Tensor:
    return algorithm.predict(meta, algorithm.adapt(meta, support, context), x, context)


def plain_block(x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    x = nn.functional.conv2d(x, weight, padding=1) if weight.ndim == 4 else x @ weight.T
    x = nn.functional.relu(nn.functional.batch_norm(x, None, None, scale, shift, training=True))
    return nn.functional.max_pool2d(x, 2) if x.ndim == 4 and x.shape[-1] >= 2 else x


def plain_scores(meta: Tensors, features: Tensor, queries: Tensor) -> Tensor:
    """r [n, N], pair by pair, in the paper's order: all pairs are one batch."""
    own = [tensor for name, tensor in meta.items() if name.startswith("relation:")]
    pairs = torch.stack([torch.cat([feature, query]) for query in queries for feature in features])
    hidden = plain_block(plain_block(pairs, *own[0:3]), *own[3:6]).flatten(1)
    hidden = nn.functional.relu(nn.functional.linear(hidden, *own[6:8]))
    return nn.functional.linear(hidden, *own[8:10]).sigmoid().view(len(queries), len(features))


@every_case
def test_against_a_plain_implementation(model: Model, feature: tuple[int, ...], make_episode: MakeEpisode) -> None:
    algorithm, meta, context = bench(model, feature)
    episode = make_episode(feature=feature, shots=2)
    together = context.network(torch.cat([episode.support.x, episode.query.x]))
    if isinstance(model, Conv4):
        side = feature[1] // 4
        together = together.view(-1, 4, side, side)
    support, queries = together[:6], together[6:]
    features = torch.stack([support[episode.support.y == k].sum(0) for k in range(3)])
    expected = plain_scores(meta, features, queries)
    found = logits_of(algorithm, meta, episode.support, episode.query.x, context)
    torch.testing.assert_close(found.exp(), expected)
    outcome = algorithm.loss(meta, episode, context)
    target = torch.eye(3, dtype=torch.float64)[episode.query.y]
    torch.testing.assert_close(outcome.loss, nn.functional.mse_loss(expected, target))
    torch.testing.assert_close(outcome.score, (expected.argmax(1) == episode.query.y).double().mean())


def test_module_of_the_paper() -> None:
    # Two convolutions of 64 filters, on 128 and 64 maps, with batch norm; 7x7 maps are pooled to 1x1 on the way to 8.
    _, meta = start(RelationNet(channels=64), Conv4(pools=2), TaskShape((1, 28, 28), 5), seed=0)
    shapes = [tuple(tensor.shape) for name, tensor in meta.items() if name.startswith("relation:")]
    norm = [(64,), (64,)]
    assert shapes == [(64, 128, 3, 3), *norm, (64, 64, 3, 3), *norm, (8, 64), (8,), (1, 8), (1,)]


@pytest.mark.parametrize(("channels", "size"), [(4, 16), (4, 36), (None, 16)])
def test_what_counts_as_maps(channels: int | None, size: int) -> None:
    _, meta = start(RelationNet(channels=channels), MLP(hidden=(size,)), TaskShape((4,), 3), seed=0)
    assert meta["relation:0.weight"].shape == ((channels, 2 * channels, 3, 3) if channels else (size, 2 * size))


@pytest.mark.parametrize(("channels", "size"), [(4, 4), (4, 20), (4, 18), (3, 16), (64, 40)])
def test_what_are_no_maps(channels: int, size: int) -> None:
    with pytest.raises(InputError, match=f"an embedding of {size} numbers is not {channels} square feature maps"):
        start(RelationNet(channels=channels), MLP(hidden=(size,)), TaskShape((4,), 3), seed=0)


def test_start_depends_on_the_seed_alone() -> None:
    first, again, other = (start(RelationNet(), MAPS, TaskShape((1, 12, 12), 3), seed=seed)[1] for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["relation:0.weight"], other["relation:0.weight"])


@every_case
def test_predicting_draws_no_random_numbers(model: Model, feature: tuple[int, ...], make_episode: MakeEpisode) -> None:
    algorithm, meta, context = bench(model, feature)
    episode, before = make_episode(feature=feature), torch.random.get_rng_state()
    logits_of(algorithm, meta, episode.support, episode.query.x, context)
    assert torch.equal(torch.random.get_rng_state(), before)


@every_case
@every_protocol
def test_gradients_and_chunks(
    model: Model, feature: tuple[int, ...], protocol: Protocol, make_episode: MakeEpisode
) -> None:
    algorithm, meta, context = bench(model, feature, protocol)
    chunk = make_episode(feature=feature, shots=3, queries=3, size=2)
    mapped = algorithm.meta_gradient(meta, chunk, replace(context, batched=True))
    singles = []
    for i in range(2):
        support, query = (Examples(side.x[i], side.y[i]) for side in (chunk.support, chunk.query))
        one = TensorEpisode(support, query, chunk.seed[i], chunk.classes[i])
        singles.append(algorithm.meta_gradient(meta, one, context))
    torch.testing.assert_close(mapped.outcome.loss, torch.cat([one.outcome.loss for one in singles]))
    for name, gradient in mapped.gradient.items():
        torch.testing.assert_close(gradient, torch.stack([one.gradient[name] for one in singles]).sum(0))
        # Where the first block's maxima are all positive, the second block's norm subtracts the first one's shift.
        if name.startswith("relation:") and name != "relation:1.bias":
            assert float(gradient.abs().max()) > 1e-6, name


@every_case
def test_inductive_queries_do_not_see_one_another(
    model: Model, feature: tuple[int, ...], make_episode: MakeEpisode
) -> None:
    algorithm, meta, context = bench(model, feature, "inductive")
    episode = make_episode(feature=feature, shots=2)
    together = logits_of(algorithm, meta, episode.support, episode.query.x, context)
    alone = logits_of(algorithm, meta, episode.support, episode.query.x[:1], context)
    torch.testing.assert_close(alone, together[:1])


def test_inductive_statistics_are_those_of_support_pairs(make_episode: MakeEpisode) -> None:
    algorithm, meta, context = bench(*CASES[0], "inductive")
    episode = make_episode(feature=(1, 12, 12))
    embedded = context.network(episode.support.x).view(-1, 4, 3, 3)
    features = torch.stack([embedded[episode.support.y == k].sum(0) for k in range(3)])
    found = logits_of(algorithm, meta, episode.support, episode.support.x, context)
    torch.testing.assert_close(found.exp(), plain_scores(meta, features, embedded))


def test_ways_are_free_and_wrong_fields_are_refused() -> None:
    assert RelationNet().outputs(TaskShape(ways=7)) is None
    with pytest.raises(InputError, match=r"channels: .*greater than 0 \(got 0\)"):
        RelationNet.parse({"channels": 0}, where="algorithm")
