"""Values as differences to the mean of each support: in episodes, in learners, in saved tasks."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from metaray.algorithms import ALGORITHMS, CNP, MAML, Algorithm
from metaray.algorithms.algorithm import start
from metaray.algorithms.task_shape import TaskShape
from metaray.config import replace
from metaray.data import SOURCES
from metaray.data.group_table import GroupTable
from metaray.data.preprocessing import VectorPreprocessing
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.sampler import sample_episode
from metaray.errors import InputError
from metaray.imports import dump_kind
from metaray.learners.learner import Learner
from metaray.learners.loading import load_task
from metaray.models import MLP
from metaray.tasks import Regression
from tests.data.patients import made_table

SPEC = EpisodeSpec(shots=3, queries=2)
X = np.random.default_rng(0).normal(size=(6, 2))
Y = np.array([[3.0, -1.0], [5.0, 0.0], [10.0, 4.0]])


def learner_of(algorithm: Algorithm, *, centred: bool = True) -> Learner:
    task = Regression(target_size=2, mean=20.0, std=4.0, centred=centred)
    model = MLP(hidden=(5,), batch_norm=False)
    _, meta = start(algorithm, model, TaskShape((2,), 1, task), seed=3)
    return Learner(algorithm, model, meta, VectorPreprocessing(size=2), SPEC, task=task)


def test_episodes_hold_the_differences(tmp_path: Path) -> None:
    """Both sides lack the support's mean, to the last bit the same in every draw; the rows are those of before."""
    plain = replace(made_table(tmp_path), target_mean=20.0, target_std=4.0)
    centred = replace(plain, centred=True)
    for index in range(5):
        before, after = (sample_episode(table, SPEC, "meta-train", 0, index).task for table in (plain, centred))
        assert np.array_equal(before.support.x, after.support.x) and np.array_equal(before.query.x, after.query.x)
        assert after.support.y.dtype == after.query.y.dtype == np.float32
        mean = np.float32(before.support.y.astype(np.float64).mean())
        np.testing.assert_array_equal(after.support.y, before.support.y - mean)
        np.testing.assert_array_equal(after.query.y, before.query.y - mean)
    assert plain.fingerprint != centred.fingerprint and "centred" not in dump_kind(plain, SOURCES, every_field=False)
    assert dump_kind(plain, SOURCES)["centred"] is False  # so that --set knows it
    assert centred.task == Regression(mean=20.0, std=4.0, centred=True)
    with pytest.raises(InputError, match="centred: only targets that are values have a mean"):
        GroupTable.parse({"path": "t.arrow", "targets": "binary", "centred": True}, where="source")


@pytest.mark.parametrize("kind", [kind for kind, algorithm in ALGORITHMS.items() if not algorithm.needs_classes])
def test_predictions_move_with_the_support(kind: str) -> None:
    """Whatever the algorithm: where all known values lie 100 higher, so do the predictions."""
    learner = learner_of(ALGORITHMS[kind]())
    low, high = (learner.adapt(X[:3], Y + shift).predict_values(X[3:]) for shift in (0.0, 100.0))
    np.testing.assert_allclose(high - low, 100.0, atol=1e-3)


def test_it_starts_from_the_mean_of_the_support() -> None:
    """Without inner steps, a network whose outputs are 0 predicts it; not so where values are not centred."""
    for centred, expected in ((True, Y.mean(axis=0)), (False, [20.0, 20.0])):
        learner = learner_of(MAML(inner_lr=0.1), centred=centred)
        silent = dataclasses.replace(learner, meta={name: tensor * 0 for name, tensor in learner.meta.items()})
        found = silent.adapt(X[:3], Y, inner_steps=0).predict_values(X[3:])
        np.testing.assert_allclose(found, np.tile(expected, (3, 1)), rtol=1e-5)


def test_a_saved_task_predicts_the_same(tmp_path: Path) -> None:
    task = learner_of(CNP()).adapt(X[:3], Y)
    task.save(tmp_path / "task")
    again = load_task(tmp_path / "task")
    assert again.learner.task == Regression(target_size=2, mean=20.0, std=4.0, centred=True)
    np.testing.assert_array_equal(again.predict_values(X[3:]), task.predict_values(X[3:]))
