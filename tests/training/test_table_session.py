"""A whole run on a table: its baselines, a learner that goes by the names of columns, the same bits by any workers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from metaray.algorithms import CNP, MAML, R2D2, ProtoNet
from metaray.algorithms.algorithm import Algorithm
from metaray.config import replace
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.sampler import sample_episode
from metaray.experiment import Evaluation, Experiment
from metaray.learners.learner import Learner
from metaray.learners.loading import load_learner
from metaray.models import TableMLP
from metaray.records.estimate import estimate
from metaray.records.journal import read_journal
from metaray.records.result import RESULT, Result, parameters_sha256
from metaray.records.run import LEARNER, Run
from metaray.records.storage import Storage
from metaray.serving.pyfunc import PyfuncLearner, example_input
from metaray.serving.tables import read_points
from metaray.tasks import Regression
from metaray.training.evaluation import evaluate_learner
from metaray.training.outer_loop import initial_state
from metaray.training.reduction import LocalReducer
from tests.data.patients import made_table, patients
from tests.data.ratings import imported, ratings
from tests.training.test_unequal import STEPS, advance, advance_by
from tests.training.whole_runs import train

CPU = torch.device("cpu")
MakeExperiment = Callable[..., Experiment]


def experiment_of(folder: Path, algorithm: Algorithm, *, binary: bool = False, **changes: Any) -> Experiment:
    table = made_table(folder, patients(rows=10, binary=binary), binary=binary)
    if not binary:
        table = replace(table, target_mean=table.meta.target_mean, target_std=table.meta.target_std)
    fields: dict[str, Any] = {
        "name": "patients",
        "source": table,
        "episodes": EpisodeSpec(shots=2, queries="rest"),
        "model": TableMLP(hidden=(6,), embedding=2),
        "algorithm": algorithm,
        "meta_batch_size": 6,
        "num_steps": STEPS,
        "evaluation": Evaluation(every=0, val_episodes=4, test_episodes=8),
    }
    return Experiment(**fields | changes)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("algorithm", [MAML(inner_lr=0.01), CNP(), R2D2(), ProtoNet()], ids=lambda one: one.kind)
def test_any_number_of_workers_gives_the_same_bits(tmp_path: Path, algorithm: Algorithm, binary: bool) -> None:
    """Groups of unequal size: p0 has fewer rows, and all others than the support are the query."""
    if isinstance(algorithm, ProtoNet) and not binary:
        return  # it works with classes
    experiment = experiment_of(tmp_path, algorithm, binary=binary)
    states = {ranks: initial_state(experiment, CPU) for ranks in (1, 3)}
    before = parameters_sha256(states[1].meta)
    for _ in range(STEPS):
        advance(experiment, states[1], LocalReducer(), 0, 1)
        advance_by(3, experiment, states[3])
    found = {parameters_sha256(state.meta) for state in states.values()}
    assert len(found) == 1 and before not in found


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "run"))


def learner_in(storage: Storage) -> Learner:
    return load_learner(Path(storage.root) / LEARNER)


def test_baselines_are_judged_on_the_same_episodes(tmp_path: Path, storage: Storage) -> None:
    experiment = experiment_of(tmp_path, R2D2())
    result, _ = train(experiment, storage)
    assert list(result.baselines) == ["nearest_neighbor", "support_mean", "ridge"]
    assert Result.from_json(storage.read(RESULT)) == result and "test/mse_support_mean" in result.metrics
    errors = []
    for index in range(8):
        task = sample_episode(experiment.source, experiment.eval_spec, "meta-test", 0, index).task
        apart = task.query.y - task.support.y.mean()
        errors.append(float((apart**2).mean()) * experiment.source.task.std**2)  # type: ignore[attr-defined]
    rival = result.baselines["support_mean"]
    assert rival.score.mean == pytest.approx(np.mean(errors), rel=1e-5)
    assert rival.gain is not None
    assert rival.gain.mean == pytest.approx(rival.score.mean - result.meta_test.mean, rel=1e-6)
    told = dict(result.rivals)
    assert "the learner is " in told["support mean"] and "episode by episode" in told["ridge regression"]
    assert "protocol" in result.to_json() and "2-shot, all other examples as queries" in result.protocol


def test_few_groups_have_an_interval_of_their_own(tmp_path: Path, storage: Storage) -> None:
    """Two patients in meta-test: 8 episodes of them are not 8 patients."""
    plan = Evaluation(episodes=EpisodeSpec(shots=(2, 4), queries="rest"), every=0, val_episodes=4, test_episodes=8)
    result, _ = train(experiment_of(tmp_path, MAML(inner_lr=0.01), evaluation=plan), storage)
    judged = Run("run", storage).judged
    assert judged is not None and set(judged.group) == {"p7", "p8"} and len(judged) == 8
    assert all(support + query == 10 for support, query in zip(judged.support, judged.query, strict=True))
    assert set(judged.support) == {2, 3, 4}
    means = [part.scores["mse"].mean for part in judged.parts("group")]
    over = result.over_groups["mse"]
    assert means == sorted(means, reverse=True), "the worst first"
    assert over.groups == 2 and over.mean == pytest.approx(sum(means) / 2)
    assert over.half_width == pytest.approx(12.7062 * abs(means[0] - means[1]) / 2, rel=1e-5)
    assert list(result.further) == ["mae"] == [name for name in result.over_groups if name != "mse"]
    assert estimate(judged.scores["mse"]) == result.meta_test
    rival = result.baselines["support_mean"]
    assert estimate(judged.scores["mse_support_mean"]) == rival.score and len(rival.val_scores) == 4
    assert rival.gain_over_groups is not None and rival.gain_over_groups.groups == 2
    assert "over 2 groups" in str(rival) and rival.further["mae"].episodes == 8
    for key in ("test/mae", "test/mae_support_mean", "test/mse_over_groups", "test/mse_over_groups_half_width"):
        assert key in result.metrics


def test_binary_tables_have_a_logistic_regression(tmp_path: Path, storage: Storage) -> None:
    result, _ = train(experiment_of(tmp_path, ProtoNet(), binary=True), storage)
    assert (
        list(result.baselines) == ["nearest_neighbor", "logistic"] and 0 <= result.baselines["logistic"].score.mean <= 1
    )


def frame(group: str) -> pd.DataFrame:
    head, *rows = patients(rows=10)
    found = pd.DataFrame([row for row in rows if row[0] == group], columns=head)
    numbers = found[["age", "dose", "score"]].apply(pd.to_numeric)
    return found.assign(**{name: numbers[name] for name in numbers})


def test_learners_go_by_the_names_of_columns(tmp_path: Path, storage: Storage) -> None:
    train(experiment_of(tmp_path, MAML(inner_lr=0.01)), storage)
    learner, rows = learner_in(storage), frame("p8")
    known, new = rows[:4], rows[4:].drop(columns="score")
    expected = learner.adapt(known, known["score"]).predict_values(new)
    assert expected.shape == (6,)
    assert abs(expected.mean() - known["score"].mean()) < 15  # the table's own units, about 28
    shuffled = new[new.columns[::-1]]
    assert np.array_equal(learner.adapt(known, known["score"]).predict_values(shuffled), expected)

    known.to_csv(tmp_path / "known.csv", index=False)
    new.to_csv(tmp_path / "new.csv", index=False)
    points = read_points(tmp_path / "known.csv", learner, targets=True, y=["score"])
    queries = read_points(tmp_path / "new.csv", learner, targets=False, y=["score"])
    np.testing.assert_allclose(learner.adapt(points.x, points.y).predict_values(queries.x)[:, 0], expected, rtol=1e-6)


def test_one_table_for_mlflow(tmp_path: Path, storage: Storage) -> None:
    train(experiment_of(tmp_path, MAML(inner_lr=0.01)), storage)
    learner, rows = learner_in(storage), frame("p8")
    expected = learner.adapt(rows[:4], rows["score"][:4]).predict_values(rows[4:])
    table = rows[["age", "dose", "colour"]].assign(role=["support"] * 4 + ["query"] * 6, y=rows["score"])
    found = PyfuncLearner(learner).predict(table)
    np.testing.assert_allclose(found["y"], expected, rtol=1e-6)
    assert len(PyfuncLearner(learner).predict(example_input(learner))) == 2


def rating_experiment(folder: Path, **changes: Any) -> Experiment:
    table = replace(imported(folder), target_mean=4.0, target_std=1.5, judged_by="mae", trained_by="mae")
    fields: dict[str, Any] = {
        "name": "ratings",
        "source": table,
        "episodes": EpisodeSpec(shots=2, queries="rest"),
        "model": TableMLP(hidden=(6,), item_embedding=2),
        "algorithm": R2D2(prior=True),
        "meta_batch_size": 6,
        "num_steps": STEPS,
        "evaluation": Evaluation(every=1, val_episodes=4, test_episodes=8),
    }
    return Experiment(**fields | changes)


def test_items_have_baselines_and_scores_are_those_asked_for(tmp_path: Path, storage: Storage) -> None:
    experiment = rating_experiment(tmp_path)
    result, _ = train(experiment, storage)
    assert (
        set(result.baselines) == {"nearest_neighbor", *Regression.baselines, *Regression.item_baselines}
        and result.quality == "mae"
    )
    assert {"test/mae", "test/mae_item_mean", "best/val_mae"} <= result.metrics.keys()
    errors: dict[str, list[float]] = {"item_mean": [], "global_mean": []}
    item = experiment.source.preprocessing.item  # type: ignore[attr-defined]
    for index in range(8):
        query = sample_episode(experiment.source, experiment.eval_spec, "meta-test", 0, index).task.query
        means, y = query.x[:, 3] * item.std_of_means + item.mean_of_means, query.y[:, 0] * 1.5 + 4
        errors["item_mean"].append(float(np.abs(y - means).mean()))
        errors["global_mean"].append(float(np.abs(y - item.global_mean).mean()))
    for name, expected in errors.items():
        assert result.baselines[name].score.mean == pytest.approx(np.mean(expected), rel=1e-5)
    gain = float(np.mean(errors["item_mean"])) - result.meta_test.mean
    found = result.baselines["item_mean"].gain
    assert found is not None and found.mean == pytest.approx(gain, rel=1e-4)
    on_val = [one.value for one in read_journal(storage) if one.key == "val/mae"]
    assert result.meta_val.mean == pytest.approx(min(on_val))  # less is better


def test_learners_find_items_by_their_names(tmp_path: Path, storage: Storage) -> None:
    train(rating_experiment(tmp_path), storage)
    learner = learner_in(storage)
    rows = pd.DataFrame(ratings()[1:], columns=ratings()[0])
    rows = rows[rows["user"] == "u9"].assign(rating=lambda each: each["rating"].astype(float))
    found = learner.adapt(rows[:3], rows["rating"][:3]).predict_values(rows[3:].drop(columns="rating"))
    assert found.shape == (6,) and len(set(found.tolist())) > 1 and abs(found.mean() - rows["rating"].mean()) < 3
    assert [column.name for column in learner.preprocessing.columns] == ["genres", "film"]


def test_ratings_by_any_number_of_workers_have_the_same_bits(tmp_path: Path) -> None:
    experiment = rating_experiment(tmp_path)
    states = {ranks: initial_state(experiment, CPU) for ranks in (1, 3)}
    for _ in range(STEPS):
        advance(experiment, states[1], LocalReducer(), 0, 1)
        advance_by(3, experiment, states[3])
    assert len({parameters_sha256(state.meta) for state in states.values()}) == 1


def test_a_learner_is_judged_by_another_score_where_it_is_asked_for(tmp_path: Path, storage: Storage) -> None:
    experiment = rating_experiment(tmp_path)
    result, _ = train(experiment, storage)
    other = replace(experiment, source=replace(experiment.source, judged_by="rmse"))
    scores = evaluate_learner(learner_in(storage), other, "meta-test")
    assert scores.estimate.mean > result.meta_test.mean  # the root mean square is above the mean absolute error
