"""What the interface gives for free, and what it refuses."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from metaray.algorithms import ALGORITHMS, CNP, MAML, ProtoNet
from metaray.algorithms.algorithm import MOST_INNER_STEPS, Outcome, by_episode, start
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import TensorEpisode
from metaray.errors import InputError
from metaray.models import MLP, Conv4
from metaray.models.model import build_fresh
from metaray.models.state import tensors_sha256
from metaray.tasks import Regression


def test_starting_depends_on_the_seed_alone() -> None:
    task_shape, before = TaskShape((4,), 3), torch.random.get_rng_state()
    one, again, other = (start(CNP(), MLP(hidden=(5,)), task_shape, seed=seed)[1] for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_which_algorithms_are_fixed_to_their_ways() -> None:
    assert (MAML().fixed_ways, ProtoNet().fixed_ways, CNP().fixed_ways) == (True, False, True)
    assert TaskShape(ways=5).outputs == 5 and TaskShape(task=Regression(target_size=2)).outputs == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_frozen_parameters_are_no_meta_parameters(dtype: torch.dtype) -> None:
    network = nn.Linear(2, 2)
    network.table = nn.Parameter(torch.zeros(3, dtype=dtype), requires_grad=False)
    assert list(MAML().init(network, TaskShape((2,), 2))) == ["weight", "bias"]


@pytest.mark.parametrize("size", [None, 3])
def test_gradients_by_episode_add_up(size: int | None, make_episode: Callable[..., TensorEpisode]) -> None:
    def gradient_of(episode: TensorEpisode) -> tuple[Tensors, Outcome]:
        total = episode.query.x.sum()
        return {"w": total * torch.ones(2, dtype=total.dtype)}, Outcome(total, 2 * total)

    chunk = make_episode(size=size)
    found = by_episode(gradient_of, chunk, Context(network=nn.Identity(), ways=3, batched=size is not None))
    totals = chunk.query.x.flatten(1).sum(1) if size else chunk.query.x.sum()[None]
    torch.testing.assert_close(found.outcome.loss, totals)
    torch.testing.assert_close(found.outcome.score, 2 * totals)
    torch.testing.assert_close(found.gradient["w"], totals.sum().expand(2))


@pytest.mark.parametrize("kind", sorted(kind for kind, cls in ALGORITHMS.items() if cls.gradient_steps))
def test_no_algorithm_takes_an_eternity(kind: str) -> None:
    """Learners come from others, too."""
    with pytest.raises(InputError, match=f"inner_steps: at most {MOST_INNER_STEPS} .got {2**63}."):
        ALGORITHMS[kind].parse({"inner_steps": 2**63}, where="algorithm")
    assert ALGORITHMS[kind].parse({"inner_steps": 100}, where="algorithm")


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_a_network_that_is_built_already_gives_the_same_start(kind: str) -> None:
    """Bit for bit, also where the algorithm draws parameters of its own after the network's."""
    algorithm, model, task_shape = ALGORITHMS[kind](), Conv4(channels=4), TaskShape((1, 28, 28), 5, classes=20)
    network, meta = start(algorithm, model, task_shape, seed=3)
    fresh = build_fresh(model, task_shape.feature_shape, algorithm.outputs(task_shape), seed=3)
    torch.rand(5)
    taken, found = start(algorithm, model, task_shape, seed=3, fresh=fresh)
    assert taken is fresh.network and taken is not network
    assert list(found) == list(meta)
    for one, other in ((found, meta), (taken.state_dict(), network.state_dict())):
        assert tensors_sha256(one) == tensors_sha256(other)
