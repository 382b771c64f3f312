"""Learners of values: adapted to raw numbers, saved and loaded, and what they refuse."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metaray.algorithms import ALGORITHMS, MAML, Algorithm, NearestNeighbor, ProtoNet
from metaray.algorithms.algorithm import start
from metaray.algorithms.task_shape import TaskShape
from metaray.data.preprocessing import ImagePreprocessing, VectorPreprocessing
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from metaray.learners.learner import Learner
from metaray.learners.loading import load_learner
from metaray.models import MLP
from metaray.tasks import Regression

X, Y = np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [2.0], [4.0]])
ASKED = np.array([[0.5], [1.5]])


def learner_of(algorithm: Algorithm, *, features: int = 1, values: int = 1) -> Learner:
    model = MLP(hidden=(5,), batch_norm=False)
    _, meta = start(algorithm, model, TaskShape((features,), 1, Regression(target_size=values)), seed=3)
    spec, task = EpisodeSpec(shots=3, queries=2), Regression(target_size=values)
    return Learner(algorithm, model, meta, VectorPreprocessing(size=features), spec, task=task)


@pytest.mark.parametrize("kind", [kind for kind, algorithm in ALGORITHMS.items() if not algorithm.needs_classes])
def test_every_algorithm_of_regression(kind: str, tmp_path: Path) -> None:
    learner = learner_of(ALGORITHMS[kind](), features=2, values=2)
    x, y = np.arange(6.0).reshape(3, 2), np.arange(6.0).reshape(3, 2) / 7
    task = learner.adapt(x, y)
    found = task.predict_values(x[:2])
    assert task.classes == () and found.shape == (2, 2) and found.dtype == np.float32
    learner.save(tmp_path)
    loaded = load_learner(tmp_path)
    assert loaded.task == Regression(target_size=2) and loaded.ways is None
    assert np.array_equal(loaded.adapt(x, y).predict_values(x[:2]), found)


def test_predictions_have_the_shape_of_the_targets() -> None:
    learner = learner_of(MAML(inner_lr=0.1))
    whole = learner.adapt(X, Y).predict(ASKED)
    flat = learner.adapt(X[:, 0].tolist(), Y[:, 0].tolist()).predict(ASKED[:, 0].tolist())
    assert isinstance(whole, np.ndarray) and whole.shape == (2, 1)
    assert isinstance(flat, np.ndarray) and flat.shape == (2,) and np.array_equal(flat, whole[:, 0])


def test_targets_may_come_one_by_one() -> None:
    learner = learner_of(MAML(inner_lr=0.1))
    found = learner.adapt(X, (y for y in Y[:, 0])).predict_values(ASKED)
    assert found.shape == (2,) and np.array_equal(found, learner.adapt(X, Y[:, 0]).predict_values(ASKED))


def test_the_support_is_what_it_learns_from() -> None:
    learner = learner_of(MAML(inner_lr=0.05))
    errors = [
        float(np.mean((learner.adapt(X, Y, inner_steps=steps).predict_values(X) - Y) ** 2)) for steps in (0, 1, 10, 100)
    ]
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 10
    before = learner.adapt(X, Y, inner_steps=0)
    assert all(torch.equal(before.adapted[name], value) for name, value in learner.meta.items())


def test_inputs_are_normalised() -> None:
    learner = learner_of(NearestNeighbor())
    task = learner.adapt(X, Y)
    assert task.predict_values([[1.9], [-7.0]]).tolist() == [[4.0], [0.0]]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, Y[:2], "3 support inputs for 2 targets; give one target an input"),
        (np.zeros((3, 2)), Y, "x has the shape [3, 2], but this learner takes [n, 1] or [n]"),
        (X, np.zeros((3, 2)), "y has the shape [3, 2], but this learner takes [n, 1] or [n]"),
        (X, [0.0, np.nan, 1.0], "row 1 of y holds nan"),
        ([0.0, 1.0, np.inf], Y, "row 2 of x holds inf"),
        (X, ["cat", "dog", "cat"], "y must be an array of numbers, [n, 1] or [n]"),
        ([], [], "y holds nothing; give an array of numbers"),
        ([Path("a.png")] * 3, Y, "x must be an array of numbers"),
    ],
)
def test_what_is_refused(x: Any, y: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        learner_of(MAML()).adapt(x, y)


def test_queries_that_do_not_fit() -> None:
    task = learner_of(MAML(), features=2).adapt(np.zeros((2, 2)), [1.0, 2.0])
    with pytest.raises(InputError, match=re.escape("x has the shape [3], but this learner takes [n, 2]")):
        task.predict([1.0, 2.0, 3.0])


def test_one_vector_alone_is_one_input() -> None:
    task = learner_of(MAML(), features=2).adapt(np.zeros((2, 2)), [1.0, 2.0])
    assert task.predict_values([1.0, 2.0]).tolist() == task.predict_values([[1.0, 2.0]]).tolist()


def test_values_are_no_probabilities() -> None:
    with pytest.raises(InputError, match="predicts values: use predict or predict_values"):
        learner_of(MAML()).adapt(X, Y).predict_proba(ASKED)
    images, algorithm = ImagePreprocessing(height=2, width=2), ProtoNet()
    _, meta = start(algorithm, MLP(hidden=(5,)), TaskShape((1, 2, 2), 2), seed=0)
    classifier = Learner(algorithm, MLP(hidden=(5,)), meta, images, EpisodeSpec(ways=2, shots=1, queries=1))
    task = classifier.adapt(np.zeros((2, 2, 2), np.uint8), ["a", "b"])
    with pytest.raises(InputError, match="tells classes apart: use predict or predict_proba"):
        task.predict_values(np.zeros((2, 2, 2), np.uint8))


def test_a_classifier_of_vectors() -> None:
    algorithm, model = ProtoNet(), MLP(hidden=(5,), batch_norm=False)
    _, meta = start(algorithm, model, TaskShape((2,), 2), seed=0)
    learner = Learner(algorithm, model, meta, VectorPreprocessing(size=2), EpisodeSpec(ways=2, shots=1, queries=1))
    assert learner.adapt([[0.0, 9.0], [9.0, 0.0]], ["a", "b"]).predict([[0.0, 8.0], [8.0, 1.0]]) == ["a", "b"]
