"""Checkpoints: exact, atomic, checked, each on its own."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load, save

from metaray.episodes.prefetch import Arrival
from metaray.episodes.sampler import sample_meta_batch
from metaray.experiment.experiment import Experiment
from metaray.manifest import MANIFEST, sealed
from metaray.optimizers import SGD, Adam, AdamW, CustomOptimizer, Group, OuterOptimizer
from metaray.optimizers.schedules import Cosine, LinearWarmUp, Step
from metaray.records.checkpoint import copies, load_checkpoint, save_checkpoint
from metaray.records.checkpoint_files import (
    CHECKPOINTS_FOLDER,
    Progress,
    checkpoint_name,
    keep_checkpoints,
    newest_progress,
    orphans,
    saved_steps,
    sweep,
    whole_steps,
)
from metaray.records.environment import environment
from metaray.records.result import parameters_sha256
from metaray.records.storage import Storage
from metaray.records.train_state import TrainState
from metaray.training.outer_loop import initial_state, outer_loop
from metaray.training.reduction import LocalReducer
from tests.optimizers import own

MakeExperiment = Callable[..., Experiment]
CPU = torch.device("cpu")
RATES = {"body.*": Group(outer_lr=0.05)}
PARTS = {"body.*": Group(outer_lr=0.05), "*.bias": Group(weight_decay=0.2)}
KINDS = [
    Adam(outer_lr=0.02),
    AdamW(outer_lr=0.02, weight_decay=0.1, schedule="cosine", warmup_steps=2),
    SGD(outer_lr=0.1, momentum=0.9),
    SGD(outer_lr=0.1),
    SGD(outer_lr=0.1, momentum=0.9, nesterov=True, schedule="linear", groups=PARTS),
    AdamW(outer_lr=0.02, schedule=Step(decay_every=2), groups=PARTS),
    Adam(outer_lr=0.02, schedule=LinearWarmUp(steps=3, then=Cosine(final_lr_fraction=0.5))),
    own.Signum(outer_lr=0.01, schedule=own.Polynomial(power=2), groups=RATES),
    CustomOptimizer(path=f"{own.__name__}:Nested", outer_lr=0.05, groups=RATES),
    *(CustomOptimizer(path=f"torch.optim:{name}", outer_lr=0.01) for name in ("RAdam", "NAdam", "Adagrad", "ASGD")),
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


@pytest.mark.parametrize("optimizer", KINDS, ids=lambda one: f"{getattr(one, 'path', one.kind)}-{one.schedule}")
@pytest.mark.parametrize("at", [0, 1, 4])
def test_a_resumed_run_has_the_same_bits(
    optimizer: OuterOptimizer, at: int, storage: Storage, make_experiment: MakeExperiment
) -> None:
    experiment = make_experiment(optimizer=optimizer)
    whole = initial_state(experiment, CPU)
    advance(experiment, whole, at)
    progress = Progress(best_step=1, best_score=0.25, window={"steps": 3, "loss": 0.1 + 0.2}, clock={"seconds": 1e-3})
    save_checkpoint(storage, whole, progress, whole.meta)
    advance(experiment, whole, 6 - at)

    resumed = initial_state(experiment, CPU)
    loaded = load_checkpoint(storage, resumed)
    assert loaded.progress == dataclasses.replace(progress, step=at, environment=environment())
    assert resumed.step == at and loaded.damaged == {}
    advance(experiment, resumed, 6 - at)
    assert parameters_sha256(resumed.meta) == parameters_sha256(whole.meta)


def test_saving_and_loading_do_not_disturb_a_run(storage: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment()
    alone, watched = initial_state(experiment, CPU), initial_state(experiment, CPU)
    advance(experiment, alone, 4)
    for _ in range(4):
        advance(experiment, watched, 1)
        save_checkpoint(storage, watched, Progress(), watched.meta)
        load_checkpoint(storage, watched)
    assert parameters_sha256(alone.meta) == parameters_sha256(watched.meta)


class Saved(NamedTuple):
    """Checkpoints of steps 1, 2 and 3, of which the best is 2; a fresh state, and the digests of the parameters."""

    state: TrainState
    digests: dict[int, str]


@pytest.fixture
def three(storage: Storage, make_experiment: MakeExperiment) -> Saved:
    experiment = make_experiment()
    state, digests = initial_state(experiment, CPU), {}
    best = copies(state.meta)
    for step in (1, 2, 3):
        advance(experiment, state, 1)
        if step < 3:
            best = copies(state.meta)
        progress = Progress(best_step=min(step, 2), best_score=0.5)
        assert save_checkpoint(storage, state, progress, best) == f"step-{step:09d}"
        digests[step] = parameters_sha256(state.meta)
    return Saved(initial_state(experiment, CPU), digests)


def path(storage: Storage, step: int, name: str = "") -> Path:
    return Path(storage.root) / CHECKPOINTS_FOLDER / checkpoint_name(step) / name


def damage(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    if how == "remove":
        file.unlink()
    else:
        data[len(data) // 3] ^= 4
        file.write_bytes(data[: len(data) // 3] if how == "truncate" else data)


def test_the_newest_is_taken(storage: Storage, three: Saved) -> None:
    assert saved_steps(storage) == [1, 2, 3]
    loaded = load_checkpoint(storage, three.state)
    assert loaded.progress.step == three.state.step == 3 and loaded.damaged == {}
    assert parameters_sha256(three.state.meta) == three.digests[3]


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_checkpoint_needs_no_other(step: int, storage: Storage, three: Saved) -> None:
    for other in {1, 2, 3} - {step}:
        shutil.rmtree(path(storage, other))
    loaded = load_checkpoint(storage, three.state)
    assert loaded.progress.step == step and loaded.progress.best_step == min(step, 2) and loaded.damaged == {}
    assert parameters_sha256(three.state.meta) == three.digests[step]
    assert parameters_sha256(loaded.best) == three.digests[min(step, 2)]


def test_the_best_are_copies(storage: Storage, three: Saved) -> None:
    shutil.rmtree(path(storage, 3))
    loaded = load_checkpoint(storage, three.state)
    with torch.no_grad():
        for tensor in three.state.meta.values():
            tensor += 1
    assert parameters_sha256(loaded.best) == three.digests[2]
    assert not any(tensor.requires_grad for tensor in loaded.best.values())


def test_without_its_manifest_a_checkpoint_does_not_exist(storage: Storage, three: Saved) -> None:
    path(storage, 3, MANIFEST).unlink()
    assert saved_steps(storage) == [1, 2]
    loaded = load_checkpoint(storage, three.state)
    assert three.state.step == 2 and parameters_sha256(three.state.meta) == three.digests[2]
    assert loaded.damaged == {}


WHY = {
    ("state.safetensors", "flip"): "state.safetensors does not match its checksum",
    ("state.safetensors", "truncate"): "state.safetensors has ",
    ("state.safetensors", "remove"): "state.safetensors is missing",
    ("progress.json", "flip"): "progress.json does not match its checksum",
    ("progress.json", "truncate"): "progress.json has ",
    ("progress.json", "remove"): "progress.json is missing",
    (MANIFEST, "truncate"): "manifest.json is unreadable",
}


@pytest.mark.parametrize(("name", "how"), WHY)
def test_a_damaged_one_is_passed_over_and_named(name: str, how: str, storage: Storage, three: Saved) -> None:
    damage(path(storage, 3, name), how)
    loaded = load_checkpoint(storage, three.state)
    assert three.state.step == loaded.progress.step == 2 and parameters_sha256(three.state.meta) == three.digests[2]
    assert list(loaded.damaged) == [3] and loaded.damaged[3].startswith(WHY[name, how])


def test_two_damaged_ones(storage: Storage, three: Saved) -> None:
    damage(path(storage, 3, "progress.json"), "remove")
    damage(path(storage, 2, "state.safetensors"), "flip")
    loaded = load_checkpoint(storage, three.state)
    assert loaded.damaged == {3: "progress.json is missing", 2: "state.safetensors does not match its checksum"}
    assert three.state.step == 1 and parameters_sha256(three.state.meta) == three.digests[1]


def test_an_older_damaged_one_is_of_no_interest(storage: Storage, three: Saved) -> None:
    damage(path(storage, 2, "state.safetensors"), "flip")
    assert load_checkpoint(storage, three.state).damaged == {} and three.state.step == 3


def test_all_damaged_is_a_fresh_start(storage: Storage, three: Saved) -> None:
    fresh = parameters_sha256(three.state.meta)
    for step in (1, 2, 3):
        damage(path(storage, step, "state.safetensors"), "flip")
    loaded = load_checkpoint(storage, three.state)
    assert sorted(loaded.damaged) == [1, 2, 3] and loaded.progress == Progress()
    assert three.state.step == 0 and parameters_sha256(three.state.meta) == parameters_sha256(loaded.best) == fresh


def test_the_manifest_is_written_last(
    storage: Storage, make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = Storage.write

    def note(self: Storage, name: str, data: bytes) -> None:
        written.append(name.rpartition("/")[2])
        write(self, name, data)

    monkeypatch.setattr(Storage, "write", note)
    state = initial_state(make_experiment(), CPU)
    save_checkpoint(storage, state, Progress(), state.meta)
    assert written[-1] == MANIFEST and sorted(written[:-1]) == ["progress.json", "state.safetensors"]


def test_a_write_that_breaks_off_leaves_the_one_before(
    storage: Storage, three: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = three.state
    load_checkpoint(storage, state)
    write = Storage.write

    def breaks(self: Storage, name: str, data: bytes) -> None:
        if name.endswith("progress.json"):
            raise OSError("disk full")
        write(self, name, data)

    monkeypatch.setattr(Storage, "write", breaks)
    state.step = 4
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(storage, state, Progress(), state.meta)
    assert saved_steps(storage) == [1, 2, 3]
    assert load_checkpoint(storage, state).damaged == {}
    assert state.step == 3


@pytest.mark.parametrize("name", ["state.safetensors", "progress.json", MANIFEST])
@pytest.mark.parametrize("how", ["flip", "shorter", "lost"])
def test_what_was_written_is_read_back(
    name: str, how: str, storage: Storage, three: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that says yes and keeps something else."""
    write = Storage.write

    def lies(self: Storage, path: str, data: bytes) -> None:
        if not path.endswith(name):
            write(self, path, data)
        elif how != "lost":
            at = data.index(b":") if name == MANIFEST else len(data) // 2
            write(self, path, data[:at] + (b"" if how == "shorter" else bytes([data[at] ^ 1]) + data[at + 1 :]))

    monkeypatch.setattr(Storage, "write", lies)
    three.state.step = 4
    with pytest.raises(OSError, match="the checkpoint of step 4 was written, but reads back damaged: "):
        save_checkpoint(storage, three.state, Progress(), three.state.meta)
    load_checkpoint(storage, three.state)
    assert three.state.step == 3 and parameters_sha256(three.state.meta) == three.digests[3]


def test_a_damaged_one_is_replaced(storage: Storage, three: Saved, make_experiment: MakeExperiment) -> None:
    damage(path(storage, 3, "state.safetensors"), "flip")
    loaded = load_checkpoint(storage, three.state)
    advance(make_experiment(), three.state, 1)
    save_checkpoint(storage, three.state, loaded.progress, loaded.best)
    again = initial_state(make_experiment(), CPU)
    assert load_checkpoint(storage, again).damaged == {} and parameters_sha256(again.meta) == three.digests[3]


def test_nothing_saved(storage: Storage, make_experiment: MakeExperiment) -> None:
    state = initial_state(make_experiment(), CPU)
    loaded = load_checkpoint(storage, state)
    assert loaded.progress == Progress() and loaded.damaged == {} and state.step == 0
    assert parameters_sha256(loaded.best) == parameters_sha256(state.meta)


def test_retention(storage: Storage, three: Saved) -> None:
    keep_checkpoints(storage, [1, 3, 99])
    assert saved_steps(storage) == [1, 3] and storage.names(CHECKPOINTS_FOLDER) == ["step-000000001", "step-000000003"]
    keep_checkpoints(storage, [])
    assert storage.names(CHECKPOINTS_FOLDER) == []


def test_sweeping(storage: Storage, three: Saved) -> None:
    path(storage, 3, MANIFEST).unlink()
    storage.write(f"{CHECKPOINTS_FOLDER}/{checkpoint_name(4)}/state.safetensors", b"half")
    path(storage, 5).mkdir()
    half = path(storage, 2, ".state.safetensors.0123.tmp")
    half.write_bytes(b"half")
    (Path(storage.root) / ".result.json.4567.tmp").write_bytes(b"")
    before = [path(storage, step, "state.safetensors").read_bytes() for step in (1, 2)]
    assert sweep(storage) == [
        *(f"{CHECKPOINTS_FOLDER}/{checkpoint_name(step)}" for step in (3, 4, 5)),
        ".result.json.4567.tmp",
        f"{CHECKPOINTS_FOLDER}/{checkpoint_name(2)}/.state.safetensors.0123.tmp",
    ]
    assert sweep(storage) == []
    assert storage.names(CHECKPOINTS_FOLDER) == [checkpoint_name(1), checkpoint_name(2)] and storage.names() == [
        CHECKPOINTS_FOLDER
    ]
    assert [path(storage, step, "state.safetensors").read_bytes() for step in (1, 2)] == before
    assert load_checkpoint(storage, three.state).progress.step == 2


def test_sweeping_leaves_a_damaged_one_to_be_named(storage: Storage, three: Saved) -> None:
    damage(path(storage, 3, "state.safetensors"), "flip")
    assert sweep(storage) == [] and saved_steps(storage) == [1, 2, 3]


def test_sweeping_where_there_is_nothing(storage: Storage) -> None:
    assert sweep(storage) == [] and storage.names() == []


@pytest.mark.parametrize("clean", [sweep, lambda storage: keep_checkpoints(storage, [1, 2, 3])])
def test_a_file_among_the_checkpoints_is_no_obstacle(
    clean: Callable[[Storage], object], storage: Storage, three: Saved
) -> None:
    """Such as file managers and network file systems leave there."""
    storage.write(f"{CHECKPOINTS_FOLDER}/.DS_Store", b"")
    clean(storage)
    assert saved_steps(storage) == [1, 2, 3]


def test_the_environment_is_in_it(storage: Storage, three: Saved) -> None:
    assert {"torch", "numpy", "python", "cpu_capability"} <= environment().keys()
    progress = json.loads(path(storage, 3, "progress.json").read_bytes())
    assert progress["environment"] == environment()
    progress["environment"]["torch"] = "1.0"
    files = {"state.safetensors": path(storage, 3, "state.safetensors").read_bytes()}
    storage.write_folder(
        f"{CHECKPOINTS_FOLDER}/{checkpoint_name(3)}", sealed({**files, "progress.json": json.dumps(progress).encode()})
    )
    loaded = load_checkpoint(storage, three.state)
    assert loaded.progress.environment == {**environment(), "torch": "1.0"} and loaded.damaged == {}


def test_nothing_is_pickled(storage: Storage, three: Saved) -> None:
    names = storage.names(f"{CHECKPOINTS_FOLDER}/{checkpoint_name(1)}")
    assert names == [MANIFEST, "progress.json", "state.safetensors"]


def rewrite(storage: Storage, step: int, files: dict[str, bytes]) -> None:
    """Put other content into a checkpoint, with checksums that are right for it."""
    kept = {name: path(storage, step, name).read_bytes() for name in ("state.safetensors", "progress.json")}
    storage.write_folder(f"{CHECKPOINTS_FOLDER}/{checkpoint_name(step)}", sealed({**kept, **files}))


@pytest.mark.parametrize("part", ["meta", "best"])
def test_weights_that_are_not_finite_are_passed_over(part: str, storage: Storage, three: Saved) -> None:
    tensors = load(path(storage, 3, "state.safetensors").read_bytes())
    name = next(name for name in sorted(tensors) if name.startswith(part))
    tensors[name].view(-1)[0] = float("nan")
    rewrite(storage, 3, {"state.safetensors": save(tensors)})
    loaded = load_checkpoint(storage, three.state)
    assert loaded.damaged == {3: f"{name} holds values that are not finite"}
    assert parameters_sha256(three.state.meta) == three.digests[2]


def test_moments_of_an_optimizer_may_overflow(storage: Storage, three: Saved) -> None:
    tensors = load(path(storage, 3, "state.safetensors").read_bytes())
    name = next(name for name in sorted(tensors) if name.startswith("optimizer/exp_avg_sq"))
    tensors[name].view(-1)[0] = float("inf")
    rewrite(storage, 3, {"state.safetensors": save(tensors)})
    assert load_checkpoint(storage, three.state).damaged == {} and three.state.step == 3


NESTED = CustomOptimizer(path=f"{own.__name__}:Nested", outer_lr=0.05)


def test_what_torchs_own_keep_lies_where_it_lay_before(storage: Storage, three: Saved) -> None:
    assert sorted(file.name for file in path(storage, 3).iterdir()) == [
        "manifest.json",
        "progress.json",
        "state.safetensors",
    ]
    names = load(path(storage, 3, "state.safetensors").read_bytes()).keys()
    assert {"optimizer/step/head.bias", "optimizer/exp_avg/head.bias", "optimizer/exp_avg_sq/head.bias"} <= names
    assert {name.partition("/")[0] for name in names} == {"meta", "best", "optimizer"}


def test_an_earlier_checkpoint_leaves_nothing_of_a_later_one(storage: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(optimizer=NESTED)
    whole = initial_state(experiment, CPU)
    save_checkpoint(storage, whole, Progress(), whole.meta)
    advance(experiment, whole, 2)
    save_checkpoint(storage, whole, Progress(), whole.meta)
    again = initial_state(experiment, CPU)
    load_checkpoint(storage, again)
    load_checkpoint(storage, again, at_most=0)
    advance(experiment, again, 2)
    assert again.step == 2 and parameters_sha256(again.meta) == parameters_sha256(whole.meta)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[]", "is not a JSON object"),
        ("{}", "'format'"),
        ('{"format": 2}', "written in format 2, of which 1 is known"),
        ('{"format": 1, "nodes": [], "state": [], "groups": []}', "of 0 parameter groups instead of 1"),
        ('{"format": 1, "nodes": [], "state": [], "groups": [3]}', "of 1 parameter groups instead of 1"),
        ('{"format": 1, "nodes": [{"tensor": "gone"}], "state": [], "groups": []}', "'gone'"),
        ('{"format": 1, "nodes": [], "state": [[{"parameter": "gone"}, 1]], "groups": []}', "'gone'"),
        ('{"format": 1, "nodes": 3, "state": [], "groups": []}', "not iterable"),
        ('{"format": 1, "nodes": ["a"], "state": [], "groups": []}', "cannot be read"),
        ('{"format": 1, "nodes": [], "state": [[1, {"float": "00"}]], "groups": []}', "requires a buffer of 8 bytes"),
    ],
)
def test_a_damaged_state_of_an_optimizer_is_passed_over(
    text: str, what: str, storage: Storage, make_experiment: MakeExperiment
) -> None:
    experiment = make_experiment(optimizer=NESTED)
    state = initial_state(experiment, CPU)
    save_checkpoint(storage, state, Progress(), state.meta)
    before = parameters_sha256(state.meta)
    advance(experiment, state, 1)
    save_checkpoint(storage, state, Progress(), state.meta)
    rewrite(storage, 1, {"optimizer.json": text.encode()})
    loaded = load_checkpoint(storage, state)
    assert list(loaded.damaged) == [1] and what in loaded.damaged[1]
    assert state.step == 0 and parameters_sha256(state.meta) == before


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[]", "is not a JSON object"),
        ('{"a":' * 5000, "nested more than"),
        ('{"step": "many"}', "Input should be a valid integer"),
        ('{"step": ' + "9" * 5000 + "}", "an integer of 5000 digits"),
        ('{"clock": []}', "Input should be a valid dictionary"),
    ],
)
def test_hostile_progress_is_passed_over(text: str, what: str, storage: Storage, three: Saved) -> None:
    rewrite(storage, 3, {"progress.json": text.encode()})
    assert what in load_checkpoint(storage, three.state).damaged[3].replace("\n", " ")
    assert newest_progress(storage).step == 2


@pytest.mark.parametrize("name", ["state.safetensors", "progress.json"])
def test_tensors_of_another_network_are_passed_over(name: str, storage: Storage, three: Saved) -> None:
    tensors = load(path(storage, 3, "state.safetensors").read_bytes())
    first = next(key for key in sorted(tensors) if key.startswith("meta/") and tensors[key].ndim == 2)
    tensors[first] = tensors[first][:1].clone()
    rewrite(storage, 3, {"state.safetensors": save(tensors)} if name == "state.safetensors" else {name: b"{"})
    assert list(load_checkpoint(storage, three.state).damaged) == [3]
    assert parameters_sha256(three.state.meta) == three.digests[2]


def test_onlookers_see_no_damaged_progress(storage: Storage, three: Saved) -> None:
    file = path(storage, 3, "progress.json")
    file.write_text(file.read_text().replace('"step": 3', '"step": 4'))
    assert newest_progress(storage).step == 2


def test_which_are_whole_and_which_are_orphans(storage: Storage, three: Saved) -> None:
    steps = saved_steps(storage)
    damage(path(storage, steps[1], "state.safetensors"), "truncate")
    assert whole_steps(storage) == [steps[0], steps[2]]
    path(storage, steps[0], "manifest.json").unlink()
    assert orphans(storage) == [f"checkpoints/step-{steps[0]:09d}"] and whole_steps(storage) == [steps[2]]
    assert orphans(storage) == sweep(storage) and orphans(storage) == []
