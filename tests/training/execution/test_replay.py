"""Functions that are recorded and replayed. The recorder is one that runs them again: there is no graph on a CPU."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from metaray.algorithms import MAML
from metaray.algorithms.algorithm import Algorithm
from metaray.episodes.sampler import sample_meta_batch
from metaray.episodes.tensors import TensorEpisode, chunks
from metaray.experiment.experiment import Experiment
from metaray.models import MLP
from metaray.training.execution import replay as its
from metaray.training.execution.replay import CannotRecord, CudaGraph, Recording, Replay, Rerun
from metaray.training.outer_loop import context_of, initial_state

CPU = torch.device("cpu")
DEVICES = [pytest.param("cpu", Rerun), pytest.param("cuda", CudaGraph, marks=pytest.mark.gpu)]


def doubled(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return 2 * x + y, (x * y).sum()


def numbers(*shape: int, seed: int = 0, device: str = "cpu") -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


@pytest.mark.parametrize(("device", "recorder"), DEVICES)
def test_it_gives_what_the_function_gives_and_leaves_earlier_outputs_alone(device: str, recorder: Any) -> None:
    pairs = [(numbers(3, seed=s, device=device), numbers(3, seed=s + 9, device=device)) for s in range(4)]
    replay = Replay(doubled, pairs[0], recorder=recorder)
    found = [replay(*pair) for pair in pairs]
    for pair, outputs in zip(pairs, found, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(outputs, doubled(*pair), strict=True))
    assert replay.recordings == 1


@pytest.mark.parametrize(("device", "recorder"), DEVICES)
def test_what_is_handed_out_is_overwritten_by_the_next_call(device: str, recorder: Any) -> None:
    one, other = numbers(3, device=device), numbers(3, seed=1, device=device)
    replay = Replay(doubled, (one, one), hand_out=True, recorder=recorder)
    first = replay(one, one)
    assert torch.equal(first[0], 3 * one)
    second = replay(other, other)
    assert first[0].data_ptr() == second[0].data_ptr() and torch.equal(first[0], 3 * other)


@pytest.mark.parametrize(("device", "recorder"), DEVICES)
def test_inputs_are_left_alone_and_may_be_freed(device: str, recorder: Any) -> None:
    def spoils(x: Tensor) -> tuple[Tensor]:
        return (x.mul_(2),)

    given = numbers(3, device=device)
    replay, before = Replay(spoils, (given,), recorder=recorder), given.clone()
    assert torch.equal(replay(given)[0], 2 * before) and torch.equal(given, before)
    assert torch.equal(replay(given)[0], 2 * before), "what the last replay left in the buffer counts for nothing"


@pytest.mark.parametrize(("device", "recorder"), DEVICES)
def test_other_shapes_are_recorded_beside_and_the_longest_unused_makes_room(device: str, recorder: Any) -> None:
    made: list[int] = []

    def noted(function: Any, inputs: Sequence[Tensor]) -> Recording:
        made.append(len(inputs[0]))
        found: Recording = recorder(function, inputs)
        return found

    def call(size: int) -> None:
        one, other = numbers(size, seed=size, device=device), numbers(size, device=device)
        assert torch.equal(replay(one, other)[0], doubled(one, other)[0])

    replay = Replay(doubled, (numbers(1, device=device),) * 2, recorder=noted)
    for size in (1, 2, 3, 4, 1, 5, 1, 2):
        call(size)
    assert made == [1, 2, 3, 4, 5, 2] and replay.recordings == its.MOST_KEPT
    call(4)
    assert len(made) == 6
    replay(numbers(4, device=device).double(), numbers(4, device=device).double())
    assert len(made) == 7, "another type is another recording"


@pytest.mark.parametrize(("device", "recorder"), DEVICES)
def test_parameters_stepped_in_place_are_read_where_they_are(device: str, recorder: Any) -> None:
    weight, x = numbers(3, device=device).requires_grad_(), numbers(3, seed=1, device=device)

    def slope(weight: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((weight.square() * x).sum(), weight)

    for fixed in (0, 1):
        replay = Replay(slope, (weight, x), fixed=fixed, recorder=recorder)
        for _ in range(3):
            with torch.no_grad():
                weight.sub_(0.5)
            assert torch.equal(replay(weight, x)[0], 2 * weight * x)
        assert replay.recordings == 1
        moved = weight.detach().clone().requires_grad_()
        assert torch.equal(replay(moved, x)[0], 2 * moved * x)
        assert replay.recordings == 1 + fixed, "what lies elsewhere is not what was recorded"


@pytest.mark.parametrize(("device", "recorder"), DEVICES)
def test_the_seed_before_a_replay_decides_its_random_numbers(device: str, recorder: Any) -> None:
    def dropped(x: Tensor) -> tuple[Tensor]:
        return (nn.functional.dropout(x, 0.5),)

    x = torch.ones(64, device=device)
    torch.manual_seed(7)
    (expected,) = dropped(x)
    torch.manual_seed(7)
    replay = Replay(dropped, (x,), recorder=recorder)  # draws nothing of the caller's
    assert torch.equal(replay(x)[0], expected)
    assert not torch.equal(replay(x)[0], expected), "the generator went on"
    torch.manual_seed(7)
    assert torch.equal(replay(x)[0], expected)
    torch.manual_seed(7)
    larger = torch.ones(96, device=device)
    found = replay(larger)[0]
    torch.manual_seed(7)
    assert torch.equal(found, dropped(larger)[0]), "also where it has to be recorded first"


def test_what_cannot_be_recorded_says_so_before_it_counts() -> None:
    def refuses(function: Any, inputs: Sequence[Tensor]) -> Recording:
        raise RuntimeError("operation not permitted when stream is capturing\nand much more")

    with pytest.raises(CannotRecord, match="^operation not permitted when stream is capturing$"):
        Replay(doubled, (numbers(2),) * 2, recorder=refuses)


@pytest.mark.gpu
def test_a_value_asked_of_the_device_cannot_be_recorded() -> None:
    def asks(x: Tensor) -> tuple[Tensor]:
        return (x * float(x.sum()),)

    with pytest.raises(CannotRecord):
        Replay(asks, (torch.ones(3, device="cuda"),))


def meta_gradient_of(experiment: Experiment, device: torch.device) -> tuple[Callable[..., Any], list[Tensor], Any]:
    """The meta-gradient of a chunk as a function of flat tensors, its parameters, and chunks to call it with."""
    state = initial_state(experiment, device)
    names = list(state.meta)
    batch = sample_meta_batch(experiment.source, experiment.episodes, "meta-train", 0, range(8))
    given = [some for (some,) in chunks(batch, 4, device, experiment.source, "meta-train")]
    context = context_of(experiment, state.network, training=True).of(given[0])
    algorithm: Algorithm = experiment.algorithm

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        meta = dict(zip(names, tensors, strict=False))
        support_x, support_y, query_x, query_y, seed, classes = tensors[len(names) :]
        side = type(given[0].support)
        episode = TensorEpisode(side(support_x, support_y), side(query_x, query_y), seed, classes)
        part = algorithm.meta_gradient(meta, episode, context)
        return (*(part.gradient[name] for name in names), part.outcome.loss)

    return function, [state.meta[name] for name in names], given


def flat(episode: TensorEpisode) -> list[Tensor]:
    return [*episode.support, *episode.query, episode.seed, episode.classes]


@pytest.mark.parametrize(("device", "recorder"), DEVICES)
def test_a_meta_gradient(device: str, recorder: Any, make_experiment: Callable[..., Experiment]) -> None:
    algorithm = MAML(inner_lr=0.1, inner_steps=2, batch_norm="transductive")
    experiment = make_experiment(model=MLP(hidden=(8,)), algorithm=algorithm, chunk_size=4)
    function, parameters, given = meta_gradient_of(experiment, torch.device(device))
    replay = Replay(function, [*parameters, *flat(given[0])], fixed=len(parameters), recorder=recorder)
    for episode in given * 2:
        found, expected = replay(*parameters, *flat(episode)), function(*parameters, *flat(episode))
        assert all(torch.equal(one, other.detach()) for one, other in zip(found, expected, strict=True))
        with torch.no_grad():
            for parameter, slope in zip(parameters, found, strict=False):
                parameter.sub_(0.1 * slope)
    assert replay.recordings == 1


def test_modules_need_not_be_told(make_experiment: Callable[..., Experiment]) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5))
    names = [name for name, _ in network.named_parameters()]

    def forward(*tensors: Tensor) -> tuple[Tensor]:
        return (functional_call(network, dict(zip(names, tensors, strict=False)), (tensors[-1],)),)

    inputs = [*(one.detach() for one in network.parameters()), numbers(2, 3)]
    replay = Replay(forward, inputs, recorder=Rerun)
    torch.manual_seed(3)
    found = replay(*inputs)[0]
    torch.manual_seed(3)
    assert torch.equal(found, forward(*inputs)[0].detach())
