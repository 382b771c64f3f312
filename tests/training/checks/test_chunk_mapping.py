"""Chunks against single episodes, before a run starts and on the chunk size of the device that will run."""

from collections.abc import Callable

import pytest
import torch

from metaray.algorithms import ALGORITHMS, MAML, MAMLPP, ProtoNet
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment, Precision, learners_of
from metaray.models import Conv4
from metaray.tasks import Binary
from metaray.training.checks import chunk_mapping as mapping
from metaray.training.checks.preflight import check_chunks, preflight
from metaray.training.outer_loop import initial_state
from tests.tasks.planes import Planes
from tests.user_networks import own

MakeExperiment = Callable[..., Experiment]
CPU, GPU = torch.device("cpu"), torch.device("cuda")
STEEP = MAML(inner_lr=1.0, inner_steps=5)


def test_chunks_that_differ_are_refused_by_the_modules_name(make_experiment: MakeExperiment) -> None:
    told = r"another meta-gradient than one by one \(.* [0-9.]+e-0\d\): .* in module 'more\.1' \(Square\) is wrong; set"
    for algorithm in (STEEP, MAML(second_order=False), ProtoNet()):
        with pytest.raises(InputError, match=told):
            preflight(make_experiment(model=own("WrongInChunks"), algorithm=algorithm, chunk_size=2))
        preflight(make_experiment(model=own("WrongInChunks"), algorithm=algorithm, chunk_size=1))


def test_it_is_the_device_that_decides(make_experiment: MakeExperiment) -> None:
    """A meta-batch of 8 is one chunk on a GPU, and has chunks of 1 here."""
    experiment = make_experiment(model=own("WrongInChunks"), algorithm=STEEP, meta_batch_size=8)
    preflight(experiment)
    check_chunks(experiment, CPU)
    for check in (preflight, check_chunks):
        with pytest.raises(InputError, match="set chunk_size=1"):
            check(experiment, GPU)
    check_chunks(make_experiment(model=own("WrongInChunks"), algorithm=STEEP, meta_batch_size=4, most_workers=4), GPU)


@pytest.mark.parametrize("name", ["Norms", "Dropping", "Chances", "Held", "Single", "Remembering"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_right_passes(name: str, dtype: str, make_experiment: MakeExperiment) -> None:
    """Also what is random in training, and what insists on float32."""
    precision = Precision.parse({"dtype": dtype}, where="precision")
    preflight(make_experiment(model=own(name), algorithm=STEEP, chunk_size=2, precision=precision))


@pytest.mark.parametrize("kind", [kind for kind in ALGORITHMS if kind != "nearest_neighbor"])
def test_every_algorithm_passes(kind: str, make_experiment: MakeExperiment) -> None:
    preflight(make_experiment(algorithm=ALGORITHMS[kind](), model=Conv4(channels=2), chunk_size=2))


@pytest.mark.parametrize("kind", [kind for kind in learners_of(Binary()) if kind != "nearest_neighbor"])
def test_every_algorithm_passes_on_two_classes_of_one_way(kind: str, make_waves: MakeExperiment) -> None:
    preflight(make_waves(source=Planes(), algorithm=ALGORITHMS[kind](), chunk_size=2))


def test_what_rounding_makes_of_wild_inner_steps_is_no_fault(make_experiment: MakeExperiment) -> None:
    preflight(make_experiment(algorithm=MAML(inner_lr=300.0, inner_steps=8), chunk_size=2))
    preflight(make_experiment(algorithm=MAML(inner_lr=1e38, inner_steps=3), chunk_size=2))


def test_large_networks_are_compared_on_less(make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "LARGEST", 100)
    experiment = make_experiment(algorithm=STEEP, model=Conv4(channels=2))
    size = mapping._size_of(experiment, initial_state(experiment, CPU).network)
    assert size == (4, 2)
    preflight(make_experiment(algorithm=STEEP, model=Conv4(channels=2), chunk_size=2))
    preflight(make_experiment(algorithm=MAMLPP(inner_lr=(0.1, 0.1, 0.1), inner_steps=3), chunk_size=2))


def test_small_episodes_of_ranges_are_of_one_size(make_experiment: Callable[..., Experiment]) -> None:
    ranged = EpisodeSpec(ways=(2, 5), shots=(1, 5), queries="rest")
    small = mapping._small(make_experiment(episodes=ranged, algorithm=ProtoNet()))
    assert small == EpisodeSpec(ways=3, shots=2, queries=2)
    meta = mapping._small(make_experiment(episodes=EpisodeSpec.meta_dataset(), algorithm=ProtoNet()))
    assert meta == EpisodeSpec(ways=3, shots=2, queries=2)
