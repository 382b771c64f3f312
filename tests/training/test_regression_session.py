"""A run of regression tasks, in process: the lowest squared error is the best, and a stop leaves no trace."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace as with_changes
from pathlib import Path

import numpy as np
import pytest

from metaray.algorithms import R2D2, NearestNeighbor
from metaray.data import FunctionFamily
from metaray.episodes.sampler import sample_episode
from metaray.errors import InputError, RunStopped
from metaray.experiment.experiment import Experiment
from metaray.learners.learner import Learner
from metaray.learners.loading import load_learner
from metaray.models import MLP
from metaray.records.estimate import Estimate
from metaray.records.journal import read_journal
from metaray.records.result import RESULT, Result
from metaray.records.run import LEARNER
from metaray.records.storage import Storage
from metaray.training import session
from metaray.training.evaluation import Scores, evaluate_learner
from tests.training.whole_runs import StopAfter, comparable, path, train, undated

MakeExperiment = Callable[..., Experiment]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "run"))


def learner_in(storage: Storage) -> Learner:
    return load_learner(Path(storage.root) / LEARNER)


def test_the_result_holds_squared_errors(storage: Storage, make_waves: MakeExperiment) -> None:
    experiment = make_waves()
    result, memory = train(experiment, storage)
    assert result.quality == "mse" and Result.from_json(storage.read(RESULT).decode()) == result
    keys = {metric.key for metric in read_journal(storage)}
    assert {"train/mse", "val/mse", "train/loss", "val/loss"} <= keys and not any("accuracy" in key for key in keys)
    errors = {event.step: event.values["val/mse"] for event in memory.of("evaluation")}
    assert errors[result.best_step] == min(errors.values()) == result.meta_val.mean
    assert result.meta_test == evaluate_learner(learner_in(storage), experiment, "meta-test").estimate
    assert result.before_adaptation is not None


def test_the_nearest_neighbour_is_the_nearest_target(storage: Storage, make_waves: MakeExperiment) -> None:
    experiment = make_waves()
    result, _ = train(experiment, storage)
    nearest = with_changes(learner_in(storage), algorithm=NearestNeighbor(), meta={})
    errors = []
    for index in range(8):
        episode = sample_episode(experiment.source, experiment.eval_spec, "meta-test", 0, index)
        found = nearest.adapt(episode.task.support.x, episode.task.support.y).predict_values(episode.task.query.x)
        closest = np.abs(episode.task.query.x - episode.task.support.x.T).argmin(axis=1)
        assert np.array_equal(found, episode.task.support.y[closest])
        errors.append(float(np.mean((found - episode.task.query.y) ** 2)))
    assert result.nearest_neighbor is not None
    assert result.nearest_neighbor.mean == pytest.approx(np.mean(errors), rel=1e-5)


def test_a_ridge_regression_on_the_inputs_learns_lines(storage: Storage, make_waves: MakeExperiment) -> None:
    linear = make_waves(
        source=FunctionFamily(family="line", noise=0.01),
        model=MLP(hidden=(), batch_norm=False),
        algorithm=R2D2(initial_regularizer=1e-3),
    )
    result, _ = train(linear, storage)
    assert result.nearest_neighbor is not None
    assert 1e-5 < result.meta_test.mean < 1e-2 < result.nearest_neighbor.mean, "the noise alone is left"
    assert result.before_adaptation is None


@pytest.mark.parametrize("asked", [2, 3, 5])
def test_a_stopped_run_keeps_its_best(asked: int, storage: Storage, make_waves: MakeExperiment) -> None:
    experiment, undisturbed = make_waves(), Storage(f"{storage.root}-undisturbed")
    expected, _ = train(experiment, undisturbed)
    with pytest.raises(RunStopped):
        train(experiment, storage, should_stop=StopAfter(asked))
    progress = json.loads(path(storage, asked, "progress.json").read_text())
    assert progress["best_step"] % 2 == 0 and math.isfinite(progress["best_score"])
    found, _ = train(experiment, storage)
    assert comparable(found) == comparable(expected) and undated(storage) == undated(undisturbed)


@pytest.mark.parametrize(
    ("errors", "best"),
    [([3, 1, 2], 4), ([1, 2, 3], 2), ([3, 2, 1], 6), ([math.nan, 2, 3], 4), ([1, 1, 1], 2), ([5, math.inf, 6], 2)],
)
def test_the_lowest_error_is_the_best(
    errors: list[float], best: int, storage: Storage, make_waves: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, original = iter(errors), session.Session._judge

    def judge(self: session.Session, split: str, *arguments: object, **options: object) -> Scores:
        scores = original(self, split, *arguments, **options)  # type: ignore[arg-type]
        value = next(given, None) if split == "meta-val" else None
        return scores if value is None else scores._replace(score=np.full(6, value))

    monkeypatch.setattr(session.Session, "_judge", judge)
    result, memory = train(make_waves(), storage)
    assert result.best_step == best
    assert [event.values["val/mse"] for event in memory.of("evaluation")] == pytest.approx(errors, nan_ok=True)
    assert isinstance(result.meta_val, Estimate)


def test_targets_of_another_kind_are_refused(
    storage: Storage, make_waves: MakeExperiment, make_experiment: MakeExperiment
) -> None:
    train(make_waves(num_steps=0), storage)
    message = "the learner is for regression tasks of 1 value, the source yields classification tasks"
    with pytest.raises(InputError, match=re.escape(message)):
        evaluate_learner(learner_in(storage), make_experiment(), "meta-test")
