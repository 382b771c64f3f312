"""ProtoNet by hand, and what permuting labels does."""

from collections.abc import Callable

import pytest
import torch

from metaray.algorithms import ALGORITHMS, Algorithm, NearestNeighbor, ProtoNet
from metaray.algorithms.context import Context
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.errors import InputError
from metaray.imports import dump_kind
from metaray.models import MLP
from metaray.models.batch_norm import Protocol
from metaray.models.model import build_seeded

MakeEpisode = Callable[..., TensorEpisode]


def context_of(*, batch_norm: bool = True) -> Context:
    network = build_seeded(MLP(hidden=(6,), batch_norm=batch_norm), (1, 2, 2), None, seed=1).double()
    return Context(network=network, ways=3, training=True)


def logits_of(algorithm: Algorithm, episode: TensorEpisode, context: Context) -> torch.Tensor:
    meta = algorithm.init(context.network, TaskShape())
    return algorithm.predict(meta, algorithm.adapt(meta, episode.support, context), episode.query.x, context)


def test_by_hand(make_episode: MakeEpisode) -> None:
    context, episode = context_of(batch_norm=False), make_episode(shots=3)
    logits = logits_of(ProtoNet(), episode, context)
    support, query = (context.network(side.x) for side in (episode.support, episode.query))
    prototypes = torch.stack([support[episode.support.y == k].mean(0) for k in range(3)])
    for i in range(len(query)):
        for k in range(3):
            torch.testing.assert_close(logits[i, k], -(query[i] - prototypes[k]).square().sum())


@pytest.mark.parametrize(("temperature", "divisor"), [(None, 1), (4.0, 4), ("size", 6)])
@pytest.mark.parametrize("learned_scale", [False, True])
@pytest.mark.parametrize("protocol", ["transductive", "inductive"])
def test_distances_are_scaled(
    temperature: float | None, divisor: int, learned_scale: bool, protocol: Protocol, make_episode: MakeEpisode
) -> None:
    context, episode = context_of(), make_episode()
    fields = {"temperature": temperature, "learned_scale": learned_scale, "batch_norm": protocol}
    algorithm = ProtoNet.parse(fields, where="algorithm")
    plain = logits_of(ProtoNet(batch_norm=protocol), episode, context)
    torch.testing.assert_close(logits_of(algorithm, episode, context), plain / divisor)
    meta = {name: t.requires_grad_() for name, t in algorithm.init(context.network, TaskShape()).items()}
    assert ("distance:scale" in meta) == learned_scale
    gradient = algorithm.meta_gradient(meta, episode, context).gradient
    if learned_scale:
        meta["distance:scale"] = torch.tensor(3.0, requires_grad=True)
        adapted = algorithm.adapt(meta, episode.support, context)
        torch.testing.assert_close(algorithm.predict(meta, adapted, episode.query.x, context), 3 * plain / divisor)
        assert gradient["distance:scale"] != 0


def test_its_json_is_as_it_was_before_there_were_scales() -> None:
    assert dump_kind(ProtoNet(), ALGORITHMS, every_field=False) == {"kind": "protonet", "batch_norm": "inductive"}
    assert dump_kind(ProtoNet(temperature="size"), ALGORITHMS, every_field=False)["temperature"] == "size"


@pytest.mark.parametrize("temperature", [0, -1.0, "dimension"])
def test_a_temperature_that_is_none(temperature: object) -> None:
    with pytest.raises(InputError, match="temperature"):
        ProtoNet.parse({"temperature": temperature}, where="algorithm")


def test_classes_may_differ_in_size(make_episode: MakeEpisode) -> None:
    context, episode = context_of(batch_norm=False), make_episode(shots=3)
    uneven = Examples(episode.support.x[2:-1], episode.support.y[2:-1])
    adapted = ProtoNet(batch_norm="inductive").adapt(ProtoNet().init(context.network, TaskShape()), uneven, context)
    embedded = context.network(uneven.x)
    for k in range(3):
        torch.testing.assert_close(adapted["prototypes"][k], embedded[uneven.y == k].mean(0))


@pytest.mark.parametrize("protocol", ["transductive", "inductive"])
@pytest.mark.parametrize("cls", [ProtoNet, NearestNeighbor])
def test_permuted_labels_permute_the_logits(
    cls: type[Algorithm], protocol: Protocol, make_episode: MakeEpisode
) -> None:
    context, episode = context_of(), make_episode()
    order = torch.tensor([2, 0, 1])
    renamed = episode._replace(support=Examples(episode.support.x, order[episode.support.y]))
    algorithm = cls(batch_norm=protocol)
    before, after = (logits_of(algorithm, e, context) for e in (episode, renamed))
    torch.testing.assert_close(after[:, order], before)


def test_transductive_statistics_cover_support_and_query(make_episode: MakeEpisode) -> None:
    context, episode = context_of(), make_episode()
    logits = logits_of(ProtoNet(batch_norm="transductive"), episode, context)
    together = context.network(torch.cat([episode.support.x, episode.query.x]))
    support, query = together[:6], together[6:]
    prototypes = torch.stack([support[episode.support.y == k].mean(0) for k in range(3)])
    torch.testing.assert_close(logits, -torch.cdist(query, prototypes).square())


def test_ways_are_free(make_episode: MakeEpisode) -> None:
    assert ProtoNet().outputs(TaskShape(ways=7)) is None and ProtoNet.gradient_steps is False
