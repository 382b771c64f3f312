"""What a learner loses at one query."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from metaray.algorithms import MAML, ProtoNet
from metaray.algorithms.algorithm import start
from metaray.episodes.episode import EpisodeSpec
from metaray.experiment.experiment import Evaluation, Experiment
from metaray.learners.learner import Learner
from metaray.models import MLP, Conv4
from metaray.training import single_queries as module
from metaray.training.evaluation import evaluate_learner
from metaray.training.single_queries import single_queries
from tests.tasks.planes import Planes
from tests.text_task.recipe import experiment as text_experiment
from tests.text_task.recipe import store, texts

MakeExperiment = Callable[..., Experiment]


def untrained(experiment: Experiment) -> Learner:
    algorithm, model, source = experiment.algorithm, experiment.model, experiment.source
    _, meta = start(algorithm, model, experiment.task_shape, seed=0)
    return Learner(algorithm, model, meta, source.preprocessing, experiment.eval_spec, task=source.task, classes=12)


def test_a_transductive_learner_loses(make_experiment: MakeExperiment) -> None:
    evaluation = Evaluation(val_episodes=20)
    algorithm = ProtoNet(batch_norm="transductive")
    experiment = make_experiment(algorithm=algorithm, model=MLP(hidden=(8,)), evaluation=evaluation)
    found = single_queries(untrained(experiment), experiment)
    whole = evaluate_learner(untrained(experiment), experiment, "meta-val").estimate
    assert found.together.mean == pytest.approx(whole.mean), "all six queries of each episode"
    assert found.alone is not None and found.difference is not None
    assert found.difference.mean == pytest.approx(found.alone.mean - found.together.mean)
    assert str(found).startswith(f"meta-val accuracy {found.alone.mean:.4f} one by one, {whole.mean:.4f} together: ")
    assert str(found).endswith("(20 episodes, 6 queries of each)")


def test_an_inductive_learner_loses_nothing(make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(algorithm=MAML(inner_lr=0.1), model=Conv4(channels=4))
    found = single_queries(untrained(experiment), experiment)
    assert found.difference is not None and found.difference[:2] == (0, 0)


def test_in_regression(make_waves: MakeExperiment) -> None:
    experiment = make_waves(algorithm=MAML(inner_lr=0.01), evaluation=Evaluation(val_episodes=4))
    found = single_queries(untrained(experiment), experiment)
    assert found.difference is not None and abs(found.difference.mean) < 1e-5
    assert "meta-val mse" in str(found)


def test_one_that_takes_no_single_query(make_experiment: MakeExperiment) -> None:
    experiment = make_experiment()  # an MLP: one value a channel
    found = single_queries(untrained(experiment), experiment)
    assert (found.alone, found.difference) == (None, None)
    assert str(found) == f"refused; meta-val accuracy {found.together.mean:.4f} together"


def test_its_cost_is_bounded(make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_EPISODES", 5)
    monkeypatch.setattr(module, "MOST_QUERIES", 20)
    spec = EpisodeSpec(ways=3, shots=1, queries=7)
    experiment = make_experiment(evaluation=Evaluation(episodes=spec, val_episodes=9), algorithm=MAML())
    found = single_queries(untrained(experiment), experiment)
    assert (found.together.episodes, found.queries) == (5, 4)
    assert module._spread(21, 4).tolist() == [0, 5, 10, 15], "of all three classes"
    assert np.array_equal(module._spread(3, 5), [0, 1, 2])


def test_inputs_of_several_tensors(tmp_path: Path) -> None:
    experiment = text_experiment(store(tmp_path / "texts.arrow", texts()))
    found = single_queries(untrained(experiment), experiment)
    assert found.difference is not None and abs(found.difference.mean) < 1e-6


def test_a_few_queries_hold_both_classes(make_waves: MakeExperiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 41 queries one is positive, the last; every fifth would be negatives alone, which have no AUROC."""
    monkeypatch.setattr(module, "MOST_QUERIES", 32)
    spec, evaluation = EpisodeSpec(shots=2, queries=40), Evaluation(val_episodes=4)
    experiment = make_waves(source=Planes(positives=1), episodes=spec, evaluation=evaluation)
    found = single_queries(untrained(experiment), experiment)
    assert found.queries == 9 and "meta-val auroc" in str(found)
    assert found.alone is not None and found.alone.mean == pytest.approx(found.together.mean)
