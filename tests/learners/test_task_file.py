"""Adapted tasks on disk: whole, alone, and the same to the last bit; or refused."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import nn

import metaray
from jobs.benchmarks.trials import SETTINGS
from metaray.algorithms import ALGORITHMS, MAML, Algorithm, ProtoNet
from metaray.algorithms.algorithm import start
from metaray.algorithms.task_shape import TaskShape
from metaray.data.preprocessing import ImagePreprocessing, VectorPreprocessing
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import BatchMatters, InputError
from metaray.learners.learner import AdaptedTask, Learner
from metaray.learners.task_file import ADAPTED, TASK, check_place, read_task
from metaray.manifest import MANIFEST, sealed
from metaray.models import MLP, Conv4, Custom, Model
from metaray.tasks import Regression
from tests.damage import KINDS, damaged

PREPROCESSING = ImagePreprocessing(height=16, width=16, mean=(0.4,), std=(0.3,))
LABELS = ["b", "b", "a", "a", "c", "c"]


def own_network(*, feature_shape: tuple[int, ...], outputs: int | None) -> nn.Module:
    return MLP(hidden=(5,)).build(feature_shape, outputs)


def learner_of(algorithm: Algorithm, model: Model | None = None) -> Learner:
    model = model or Conv4(channels=6)
    task_shape = TaskShape(PREPROCESSING.feature_shape, 3, classes=5)
    _, meta = start(algorithm, model, task_shape, seed=3)
    return Learner(algorithm, model, meta, PREPROCESSING, EpisodeSpec(ways=3, shots=2, queries=1), classes=5)


def regressor_of(algorithm: Algorithm, values: int = 1) -> Learner:
    model, size = MLP(hidden=(5,), batch_norm=False), 2
    _, meta = start(algorithm, model, TaskShape((size,), 1, Regression(target_size=values)), seed=3)
    spec = EpisodeSpec(shots=3, queries=2)
    return Learner(algorithm, model, meta, VectorPreprocessing(size=size), spec, task=Regression(target_size=values))


def images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 21, 19), dtype=np.uint8)


SUPPORT, QUERY = images(6), images(5, seed=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    learner_of(MAML(inner_lr=0.1)).adapt(SUPPORT, LABELS).save(tmp_path / "task")
    return tmp_path / "task"


def reseal(folder: Path, change: Callable[[dict[str, Any]], None], **files: bytes) -> None:
    """Change the description, with checksums made right again: what someone who means harm would do."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}
    description = json.loads(found[TASK])
    change(description)
    for name, data in sealed(found | {TASK: json.dumps(description).encode()} | files).items():
        (folder / name).write_bytes(data)


@pytest.mark.filterwarnings("ignore::metaray.errors.BatchMatters")
@pytest.mark.parametrize("batch_norm", ["transductive", "inductive"])
@pytest.mark.parametrize("kind", ALGORITHMS)
def test_every_algorithm_predicts_the_same_bits(kind: str, batch_norm: str, tmp_path: Path) -> None:
    algorithm = ALGORITHMS[kind].parse({**SETTINGS.get(kind, {}), "batch_norm": batch_norm}, where=kind)
    task = learner_of(algorithm).adapt(SUPPORT, LABELS)
    task.save(tmp_path / "task")
    found = metaray.load_task(tmp_path / "task")
    assert found.classes == ("b", "a", "c") and list(found.adapted) == list(task.adapted)
    assert all(found.adapted[name].stride() == tensor.stride() for name, tensor in task.adapted.items())
    assert np.array_equal(found.predict_proba(QUERY), task.predict_proba(QUERY))
    assert found.predict(QUERY) == task.predict(QUERY)


@pytest.mark.parametrize("kind", [kind for kind, algorithm in ALGORITHMS.items() if not algorithm.needs_classes])
def test_every_algorithm_of_regression_predicts_the_same_bits(kind: str, tmp_path: Path) -> None:
    algorithm = ALGORITHMS[kind].parse(SETTINGS.get(kind, {}), where=kind)
    x = np.arange(6.0).reshape(3, 2)
    for y in (x / 7, x[:, 0] / 7):
        task = regressor_of(algorithm, 1 if y.ndim == 1 else 2).adapt(x, y)
        task.save(tmp_path / "task")
        found = metaray.load_task(tmp_path / "task").predict_values(x)
        assert found.shape == y.shape and np.array_equal(found, task.predict_values(x))


def test_it_predicts_alone_in_a_process_of_its_own(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "query.npy", QUERY)
    folder.rename(tmp_path / "elsewhere")
    code = """
import metaray, numpy, torch
torch.set_num_threads(1)
numpy.save("found.npy", metaray.load_task("elsewhere").predict_proba(numpy.load("query.npy")))
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    task = learner_of(MAML(inner_lr=0.1)).adapt(SUPPORT, LABELS)
    assert np.array_equal(np.load(tmp_path / "found.npy"), task.predict_proba(QUERY))


def test_what_it_was_adapted_with_comes_back(tmp_path: Path) -> None:
    learner = learner_of(MAML(inner_lr=0.1, batch_norm="transductive"))
    task = learner.adapt(SUPPORT, [("x", 1), ("x", 1), 2.5, 2.5, b"z", b"z"], inner_steps=3)
    task.save(str(tmp_path / "new" / "task"))
    found = metaray.load_task(str(tmp_path / "new" / "task"))
    assert found.classes == (("x", 1), 2.5, b"z") and found.context.inner_steps == 3
    with pytest.warns(BatchMatters, match="judged on 3 queries at once"):
        found.predict(QUERY[:2])
    assert repr(found) == repr(task) and found.learner.spec == learner.spec


def test_the_learner_inside_adapts_to_other_tasks(folder: Path) -> None:
    one, other = metaray.load_task(folder).learner, metaray.load(folder)
    wanted = learner_of(MAML(inner_lr=0.1)).adapt(QUERY[:3], [1, 2, 3]).predict_proba(SUPPORT)
    for learner in (one, other):
        assert np.array_equal(learner.adapt(QUERY[:3], [1, 2, 3]).predict_proba(SUPPORT), wanted)


def test_a_task_is_replaced_whole_and_nothing_else_is(folder: Path, tmp_path: Path) -> None:
    task = learner_of(ProtoNet()).adapt(SUPPORT[:4], LABELS[:4])
    task.save(folder)
    assert metaray.load_task(folder).classes == ("b", "a")
    (tmp_path / "empty").mkdir()
    task.save(tmp_path / "empty")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years")
    (tmp_path / "file").write_text("x")
    for taken in ("mine", "file"):
        with pytest.raises(InputError, match="something else is there already; give a new name"):
            task.save(tmp_path / taken)
        with pytest.raises(InputError, match="something else is there already"):
            check_place(tmp_path / taken)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "mine", "task"], "nothing left beside"


def test_a_save_that_fails_leaves_the_older_task(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    task = learner_of(ProtoNet()).adapt(SUPPORT[:4], LABELS[:4])
    write, rename = Path.write_bytes, Path.rename

    def full(path: Path, data: bytes) -> int:
        if path.name == MANIFEST:
            raise OSError(28, "No space left on device")
        return write(path, data)

    def stuck(path: Path, target: Path) -> Path:
        if path.name == "task" and path.parent != folder.parent:
            raise OSError(5, "Input/output error")
        return rename(path, target)

    for name, broken, said in (("write_bytes", full, "No space left"), ("rename", stuck, "Input/output error")):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, broken)
            with pytest.raises(InputError, match=f"can't save a task as .*{said}"):
                task.save(folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert list(folder.parent.iterdir()) == [folder]


def test_a_label_that_cannot_be_saved_is_named(tmp_path: Path) -> None:
    task = learner_of(ProtoNet()).adapt(SUPPORT[:2], ["a\0b", "c"])
    with pytest.raises(InputError, match=r"the label 'a\\x00b' is"):
        task.save(tmp_path / "task")
    assert not (tmp_path / "task").exists()


@pytest.mark.parametrize("name", [TASK, ADAPTED, "learner.json", "parameters.safetensors"])
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_refused(name: str, kind: str, folder: Path) -> None:
    whole, rng = (folder / name).read_bytes(), random.Random(7)
    while (broken := damaged(whole, kind, rng)) == whole:
        pass
    (folder / name).write_bytes(broken)
    with pytest.raises(InputError, match="does not hold a whole task"):
        metaray.load_task(folder)


@pytest.mark.parametrize("name", [TASK, ADAPTED, "learner.json", MANIFEST])
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"does not hold a whole task: {name} is missing"):
        metaray.load_task(folder)


def test_what_is_no_task(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="task folder .*nowhere' does not exist"):
        metaray.load_task(tmp_path / "nowhere")
    learner_of(ProtoNet()).save(tmp_path / "learner")
    with pytest.raises(InputError, match="holds a learner that is adapted to no task yet; `metaray adapt .* --save"):
        metaray.load_task(tmp_path / "learner")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=2), "has format 2; this metaray reads format 1 of tasks"),
        (lambda d: d.update(classes=["a", "b"]), "labels or targets do not fit its learner"),
        (lambda d: d.update(classes=["a", "b", "b"]), "3 labels do not fit its learner"),
        (lambda d: d.update(classes=[]), "0 labels do not fit its learner"),
        (lambda d: d.update(classes=["a", "b", None]), "None is no label"),
        (lambda d: d.update(flat=True), "labels or targets do not fit"),
        (lambda d: d.update(inner_steps=-1), "inner_steps"),
        (lambda d: d.update(names=d["names"][1:]), "holds other tensors than"),
        (lambda d: d.update(axes={d["names"][0]: [0, 0]}), "axes that it does not have"),
        (lambda d: d.update(colour="red"), "unknown key 'colour'"),
        (lambda d: d.pop("columns"), "columns is missing"),
    ],
)
def test_a_description_that_says_something_else(
    change: Callable[[dict[str, Any]], None], message: str, folder: Path
) -> None:
    reseal(folder, change)
    with pytest.raises(InputError, match=message):
        metaray.load_task(folder)


def test_tensors_that_do_not_fit_are_refused(folder: Path) -> None:
    tensors = load((folder / ADAPTED).read_bytes())
    name = next(name for name in tensors if name.endswith("head.weight"))
    tensors[name] = torch.zeros(4, 5)
    reseal(folder, lambda d: None, **{ADAPTED: save(tensors)})
    with pytest.raises(InputError, match="a maml learner can't predict with what the task holds"):
        metaray.load_task(folder)


def test_code_of_ones_own_needs_trust(tmp_path: Path) -> None:
    task: AdaptedTask = learner_of(MAML(), Custom(path=f"{__name__}:own_network")).adapt(SUPPORT, LABELS)
    task.save(tmp_path / "task")
    with pytest.raises(InputError, match="refusing to import"):
        metaray.load_task(tmp_path / "task")
    found = metaray.load_task(tmp_path / "task", trust=[__name__.partition(".")[0]])
    assert np.array_equal(found.predict_proba(QUERY), task.predict_proba(QUERY))


def test_layouts_in_memory_come_back(tmp_path: Path) -> None:
    task = learner_of(ProtoNet()).adapt(SUPPORT, LABELS)
    odd = {"t": torch.randn(3, 4).T, "c": torch.randn(2, 3, 4, 5).permute(0, 2, 3, 1), "s": torch.randn(6)[::2]}
    replace(task, adapted=odd).save(tmp_path / "task")
    found = read_task(tmp_path / "task")[1].adapted
    assert list(found) == list(odd)
    for name, tensor in odd.items():
        assert torch.equal(found[name], tensor)
        assert name == "s" or found[name].stride() == tensor.stride()
