"""Whether a GPU has room, found out on the CPU."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from metaray.algorithms import MAML
from metaray.episodes.episode import EpisodeSpec
from metaray.experiment.experiment import Experiment
from metaray.models import Conv4
from metaray.training import room
from metaray.training.arithmetic import arithmetic_of
from metaray.training.checks.preflight import preflight
from metaray.training.outer_loop import initial_state
from metaray.training.room import gpu_episode_bytes, room_lacking

CPU, GPU = torch.device("cpu"), torch.device("cuda")
MakeExperiment = Callable[..., Experiment]


def conv(make_experiment: MakeExperiment, **changes: Any) -> Experiment:
    given = {"model": Conv4(channels=8), "algorithm": MAML(inner_steps=2, inner_lr=0.1), "meta_batch_size": 4}
    return make_experiment(**{**given, **changes})


def test_unfolded_convolutions_count_on_a_gpu(make_experiment: MakeExperiment) -> None:
    """They hold each input once for each place of the kernel."""
    found = arithmetic_of(conv(make_experiment))
    assert found.gpu_episode_bytes > 1.3 * found.episode_bytes
    assert found.worker_bytes("cuda") - found.worker_bytes("cpu") == 4 * found.gpu_episode_bytes - found.episode_bytes


@pytest.mark.parametrize(
    "changes",
    [{"chunk_size": 1}, {"execution": "each"}, {"episodes": EpisodeSpec(ways=3, shots=(1, 3), queries=2)}],
)
def test_episodes_that_are_computed_one_by_one_take_as_much_as_on_a_cpu(
    changes: dict[str, Any], make_experiment: MakeExperiment
) -> None:
    found = arithmetic_of(conv(make_experiment, **changes))
    assert found.gpu_episode_bytes == found.episode_bytes


def test_episodes_in_a_chunk_take_so_much_each(
    make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = conv(make_experiment)
    state = initial_state(experiment, CPU)
    each = gpu_episode_bytes(experiment, state)
    monkeypatch.setattr(room, "MEASURED", 4)
    four = gpu_episode_bytes(experiment, state)
    assert each is not None
    assert four == pytest.approx(each, rel=0.1)
    less = gpu_episode_bytes(experiment.model_copy(update={"recompute_inner_steps": True}), state)
    assert less is not None
    assert less < each


def test_a_gpu_without_room_is_told(make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = conv(make_experiment)
    state = initial_state(experiment, CPU)
    assert room_lacking(experiment, state, GPU) is None, "nobody knows how much is free on one that is not here"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(room, "free_bytes", lambda _: 2**20)
    told = room_lacking(experiment, state, GPU)
    assert told is not None
    assert "each of 4 episodes at once), but 1 MiB are free on the device; less take recompute_inner_steps" in told
    assert told in preflight(experiment, GPU)
    monkeypatch.setattr(room, "free_bytes", lambda _: 2**40)
    assert room_lacking(experiment, state, GPU) is None
    monkeypatch.setattr(room, "free_bytes", lambda _: pytest.fail("asked"))
    assert room_lacking(experiment, state, CPU) is None
