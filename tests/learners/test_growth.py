"""Tasks that are extended: labels, targets and inputs as users write them, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metaray.algorithms import CNP, MAML, R2D2, Algorithm, ProtoNet
from metaray.algorithms.algorithm import start
from metaray.algorithms.task_shape import TaskShape
from metaray.data.preprocessing import ImagePreprocessing, VectorPreprocessing
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from metaray.learners.growth import Kept
from metaray.learners.learner import AdaptedTask, Learner
from metaray.learners.loading import load_task
from metaray.learners.task_file import KEPT
from metaray.models import MLP, Conv4, Model
from metaray.tasks import Binary, Classification, Regression, TaskKind

X = np.random.default_rng(0).normal(size=(8, 3))


def learner_of(algorithm: Algorithm, task: TaskKind | None = None) -> Learner:
    task, model = task or Classification(), MLP(hidden=(5,), batch_norm=False)
    spec = EpisodeSpec(ways=2 if task.labels_vary else 1, shots=2, queries=2)
    _, meta = start(algorithm, model, TaskShape((3,), spec.most_ways, task), seed=3)
    return Learner(algorithm, model, meta, VectorPreprocessing(size=3), spec, task=task)


def image_learner(model: Model) -> Learner:
    prepared = ImagePreprocessing(height=16, width=16)
    _, meta = start(ProtoNet(), model, TaskShape(prepared.feature_shape, 2), seed=0)
    return Learner(ProtoNet(), model, meta, prepared, EpisodeSpec(ways=2, shots=1, queries=1))


@pytest.fixture
def task() -> AdaptedTask:
    return learner_of(ProtoNet()).adapt(X[:4], ["b", "a", "b", "a"])


def test_classes_keep_their_order_and_new_ones_follow(task: AdaptedTask) -> None:
    assert task.extend(X[4:7], ["c", "a", "aa"]).extend(X[7:], ["b"]).classes == ("b", "a", "c", "aa")
    assert task.classes == ("b", "a")


@pytest.mark.parametrize(
    ("y", "told"),
    [
        ([1], "label 0 is 1 (int), but labels of this task are str, such as 'b'; write them in the same way"),
        ([None], "label 0 is missing"),
        ([], "y holds no labels; give at least one further example"),
        (["c", "c"], "1 support input for 2 labels"),
        ("c", "y"),
    ],
)
def test_labels_that_are_refused(task: AdaptedTask, y: Any, told: str) -> None:
    with pytest.raises(InputError) as refused:
        task.extend(X[4:5], y)
    assert told in str(refused.value)


def test_other_types_of_labels() -> None:
    numbers = learner_of(ProtoNet()).adapt(X[:4], torch.tensor([7, 3, 7, 3]))
    assert numbers.extend(X[4:6], np.array([3, 9])).classes == (7, 3, 9)
    for wrong in (["9"], [9.0], [True]):
        with pytest.raises(InputError, match="labels of this task are int, such as 7"):
            numbers.extend(X[4:5], wrong)
    accents = learner_of(ProtoNet()).adapt(X[:2], ["caf\u00e9", "b"])
    with pytest.raises(InputError, match="can't be told apart"):
        accents.extend(X[4:5], ["cafe\u0301"])


def test_inputs_of_another_width_are_refused(task: AdaptedTask) -> None:
    with pytest.raises(InputError, match=r"shape \[1, 2\]"):
        task.extend(X[4:5, :2], ["a"])
    with pytest.raises(InputError, match=r"unknown way to extend a task 'all'.*Known: continue, together"):
        task.extend(X[4:5], ["a"], how="all")  # type: ignore[arg-type]


def test_one_kind_of_a_binary_task_is_enough() -> None:
    learner = learner_of(R2D2(), Binary())
    both = learner.adapt(X[:4], [0, 1, 0, 1]).extend(X[4:6], ["1", "true"])
    whole = learner.adapt(X[:6], [0, 1, 0, 1, 1, 1])
    np.testing.assert_allclose(both.predict_proba(X), whole.predict_proba(X), atol=1e-6)
    assert both.classes == (0, 1)
    with pytest.raises(InputError, match="label 1 is 2; give 0 for a negative and 1 for a positive"):
        both.extend(X[:2], [1, 2])


@pytest.mark.parametrize("algorithm", [R2D2(), R2D2(prior=True, per_example=True), CNP(), MAML()], ids=str)
@pytest.mark.parametrize("centred", [False, True])
def test_values_of_tasks_that_differ_in_their_level(algorithm: Algorithm, centred: bool, tmp_path: Path) -> None:
    """Where targets are differences to the support's mean, this moves with further examples, or stays by going on."""
    learner = learner_of(algorithm, Regression(mean=20.0, std=4.0, centred=centred))
    y = np.arange(8.0) ** 2
    first, whole = learner.adapt(X[:5], y[:5]), learner.adapt(X, y)
    np.testing.assert_allclose(first.extend(X[5:], y[5:]).predict_values(X), whole.predict_values(X), atol=1e-4)
    first.save(tmp_path / "task", support=True)
    again = load_task(tmp_path / "task").extend(X[5:], y[5:, None])
    np.testing.assert_allclose(again.predict_values(X), whole.predict_values(X), atol=1e-4)
    assert again.predict_values(X).shape == (8,), "as the first targets were given"
    on = first.extend(X[5:], y[5:], how="continue")
    same = np.allclose(on.predict_values(X), whole.predict_values(X), atol=1e-4)
    assert same is (not centred and not isinstance(algorithm, MAML))


def test_ridge_regression_keeps_as_many_rows_as_it_has_features() -> None:
    learner, random = learner_of(R2D2()), np.random.default_rng(1)
    x, y = random.normal(size=(60, 3)), [f"{i % 7}" for i in range(60)]
    task = learner.adapt(x[:10], y[:10])
    for start_at in range(10, 60, 5):
        task = task.extend(x[start_at : start_at + 5], y[start_at : start_at + 5])
    assert task.kept.summary is not None
    assert {name: tuple(one.shape) for name, one in task.kept.summary.items()} == {
        "rows:x": (6, 6),
        "rows:y": (6, 7),
        "sum:count": (),
    }
    np.testing.assert_allclose(task.predict_proba(X), learner.adapt(x, y).predict_proba(X), atol=1e-6)


def test_images_with_and_without_batch_norm(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16), dtype=np.uint8)
    labels = ["a", "b", "a", "b", "c", "c"]
    for model, name in ((Conv4(channels=4), "conv"), (MLP(hidden=(4,), batch_norm=False), "plain")):
        learner = image_learner(model)
        whole = learner.adapt(images, labels).predict_proba(images)
        first = learner.adapt(images[:4], labels[:4])
        np.testing.assert_allclose(first.extend(images[4:], labels[4:]).predict_proba(images), whole, atol=1e-6)
        first.save(tmp_path / name)
        sizes = {path.name: path.stat().st_size for path in (tmp_path / name).iterdir()}
        assert sizes[KEPT] < 1500 < 4 * 256 * 4, "sums and numbers of two classes, and no image"


@pytest.mark.parametrize("name", ["class_means", "nearest_neighbor", "ridge"])
def test_baselines_grow_too(name: str) -> None:
    learner = learner_of(ProtoNet(), Regression() if name == "ridge" else None).baseline(name)
    y: Any = list(range(8)) if name == "ridge" else ["a", "b", "a", "b", "c", "a", "c", "d"]
    grown, whole = learner.adapt(X[:4], y[:4]).extend(X[4:], y[4:]), learner.adapt(X, y)
    found, wanted = (one.predict_values(X) if name == "ridge" else one.predict_proba(X) for one in (grown, whole))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    if name == "ridge":
        with pytest.raises(InputError, match="this task of a ridge learner holds nothing to go on from"):
            grown.extend(X[:1], [1.0], how="continue")


def test_a_damaged_summary_is_refused(task: AdaptedTask, tmp_path: Path) -> None:
    summary = task.kept.summary
    assert summary is None
    task.save(tmp_path / "task")
    found = load_task(tmp_path / "task")
    assert found.kept.summary is not None
    found.kept.summary["class:sums"] = torch.zeros(2, 9)
    with pytest.raises(InputError, match="what the task holds does not fit its protonet learner"):
        found.extend(X[:1], ["a"])
    with pytest.raises(InputError, match="saved without its examples"):
        learner = learner_of(MAML())
        learner.adapt(X[:2], ["a", "b"]).save(tmp_path / "other")
        load_task(tmp_path / "other").save(tmp_path / "third", support=True)


def test_a_task_of_an_older_version_says_what_is_right(tmp_path: Path) -> None:
    """It holds neither examples nor a summary: no way of extending it leads to the other."""
    images, labels = np.random.default_rng(0).integers(0, 256, (4, 16, 16), dtype=np.uint8), ["a", "b", "a", "b"]
    task = image_learner(Conv4(channels=4)).adapt(images, labels)
    older = replace(task, kept=Kept(None))
    with pytest.raises(InputError, match=r"can't extend it without: .*--keep-support\)$"):
        older.extend(images[:1], ["a"])
    with pytest.raises(InputError, match="neither its examples nor what sums them up.*adapt anew"):
        older.extend(images[:1], ["a"], how="continue")
    summed = replace(task, kept=task.kept._replace(support=None))
    with pytest.raises(InputError, match="saved without its examples"):
        summed.save(tmp_path / "task", support=True)
