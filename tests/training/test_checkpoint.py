"""Checkpoints: exact, atomic, checked."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from metaray.episodes.prefetch import Arrival
from metaray.episodes.sampler import sample_meta_batch
from metaray.manifest import MANIFEST, Damaged
from metaray.training.checkpoint import (
    FOLDER,
    Progress,
    checkpoint_name,
    environment,
    keep_checkpoints,
    load_checkpoint,
    save_checkpoint,
    saved_steps,
)
from metaray.training.experiment import Experiment
from metaray.training.optimizer import Optimizer
from metaray.training.outer_loop import TrainState, initial_state, outer_loop
from metaray.training.reduction import LocalReducer
from metaray.training.result import parameters_sha256
from metaray.training.storage import Storage

MakeExperiment = Callable[..., Experiment]
CPU = torch.device("cpu")
KINDS = [
    Optimizer(kind="adam", outer_lr=0.02),
    Optimizer(kind="adamw", outer_lr=0.02, weight_decay=0.1, schedule="cosine", warmup_steps=2),
    Optimizer(kind="sgd", outer_lr=0.1, momentum=0.9),
    Optimizer(kind="sgd", outer_lr=0.1),
]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def advance(experiment: Experiment, state: TrainState, steps: int) -> None:
    size = experiment.meta_batch_size
    stream = (
        Arrival(
            step,
            sample_meta_batch(
                experiment.source, experiment.episodes, "meta-train", 0, range(step * size, (step + 1) * size)
            ),
            0.0,
        )
        for step in range(state.step, state.step + steps)
    )
    for _ in outer_loop(experiment, state, stream, LocalReducer(), CPU):
        pass


@pytest.mark.parametrize("optimizer", KINDS, ids=str)
@pytest.mark.parametrize("at", [0, 1, 4])
def test_a_resumed_run_has_the_same_bits(
    optimizer: Optimizer, at: int, storage: Storage, make_experiment: MakeExperiment
) -> None:
    experiment = make_experiment(optimizer=optimizer)
    whole = initial_state(experiment, CPU)
    advance(experiment, whole, at)
    save_checkpoint(storage, whole, Progress(best_step=1, best_score=0.25))
    advance(experiment, whole, 6 - at)

    resumed = initial_state(experiment, CPU)
    progress = load_checkpoint(storage, resumed)
    assert progress == Progress(step=at, best_step=1, best_score=0.25, environment=environment())
    assert resumed.step == at
    advance(experiment, resumed, 6 - at)
    assert parameters_sha256(resumed.meta) == parameters_sha256(whole.meta)


def test_saving_and_loading_do_not_disturb_a_run(storage: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment()
    alone, watched = initial_state(experiment, CPU), initial_state(experiment, CPU)
    advance(experiment, alone, 4)
    for _ in range(4):
        advance(experiment, watched, 1)
        save_checkpoint(storage, watched, Progress())
        load_checkpoint(storage, watched)
    assert parameters_sha256(alone.meta) == parameters_sha256(watched.meta)


@pytest.fixture
def three(storage: Storage, make_experiment: MakeExperiment) -> tuple[TrainState, list[str]]:
    """Checkpoints of steps 1, 2 and 3; a fresh state, and the digests of the saved parameters."""
    experiment = make_experiment()
    state, digests = initial_state(experiment, CPU), []
    for step in range(3):
        advance(experiment, state, 1)
        assert save_checkpoint(storage, state, Progress()) == f"step-{step + 1:09d}"
        digests.append(parameters_sha256(state.meta))
    return initial_state(experiment, CPU), digests


def path(storage: Storage, step: int, name: str) -> Path:
    return Path(storage.root) / FOLDER / checkpoint_name(step) / name


def test_the_newest_is_taken(storage: Storage, three: tuple[TrainState, list[str]]) -> None:
    state, digests = three
    assert saved_steps(storage) == [1, 2, 3]
    progress = load_checkpoint(storage, state)
    assert progress is not None and progress.step == state.step == 3
    assert parameters_sha256(state.meta) == digests[2]


def test_one_step_on_request(storage: Storage, three: tuple[TrainState, list[str]]) -> None:
    state, digests = three
    load_checkpoint(storage, state, 1)
    assert state.step == 1 and parameters_sha256(state.meta) == digests[0]


def test_without_its_manifest_a_checkpoint_does_not_exist(
    storage: Storage, three: tuple[TrainState, list[str]]
) -> None:
    state, digests = three
    path(storage, 3, MANIFEST).unlink()
    assert saved_steps(storage) == [1, 2]
    load_checkpoint(storage, state)
    assert state.step == 2 and parameters_sha256(state.meta) == digests[1]
    with pytest.raises(Damaged, match="manifest.json is missing"):
        load_checkpoint(storage, state, 3)


@pytest.mark.parametrize("name", ["state.safetensors", "progress.json", MANIFEST])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_one_is_passed_over(
    name: str, damage: str, storage: Storage, three: tuple[TrainState, list[str]]
) -> None:
    state, digests = three
    file = path(storage, 3, name)
    data = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    else:
        data[len(data) // 3] ^= 4
        file.write_bytes(data[: len(data) // 3] if damage == "truncate" else data)
    load_checkpoint(storage, state)
    assert state.step == 2 and parameters_sha256(state.meta) == digests[1]
    with pytest.raises(Damaged):
        load_checkpoint(storage, state, 3)


def test_the_manifest_is_written_last(
    storage: Storage, make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = Storage.write

    def note(self: Storage, name: str, data: bytes) -> None:
        written.append(name.rpartition("/")[2])
        write(self, name, data)

    monkeypatch.setattr(Storage, "write", note)
    save_checkpoint(storage, initial_state(make_experiment(), CPU), Progress())
    assert written[-1] == MANIFEST and sorted(written[:-1]) == ["progress.json", "state.safetensors"]


def test_a_write_that_breaks_off_leaves_the_one_before(
    storage: Storage, three: tuple[TrainState, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, _ = three
    load_checkpoint(storage, state)
    write = Storage.write

    def breaks(self: Storage, name: str, data: bytes) -> None:
        if name.endswith("progress.json"):
            raise OSError("disk full")
        write(self, name, data)

    monkeypatch.setattr(Storage, "write", breaks)
    state.step = 4
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(storage, state, Progress())
    assert saved_steps(storage) == [1, 2, 3]
    load_checkpoint(storage, state)
    assert state.step == 3


def test_nothing_saved(storage: Storage, make_experiment: MakeExperiment) -> None:
    state = initial_state(make_experiment(), CPU)
    assert load_checkpoint(storage, state) is None and state.step == 0


def test_retention(storage: Storage, three: tuple[TrainState, list[str]]) -> None:
    keep_checkpoints(storage, [1, 3, 99])
    assert saved_steps(storage) == [1, 3] and storage.names(FOLDER) == ["step-000000001", "step-000000003"]


def test_nothing_is_pickled(storage: Storage, three: tuple[TrainState, list[str]]) -> None:
    names = storage.names(f"{FOLDER}/{checkpoint_name(1)}")
    assert names == [MANIFEST, "progress.json", "state.safetensors"]
    assert {"torch", "numpy", "python", "cpu_capability"} <= environment().keys()
