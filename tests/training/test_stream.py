"""A stream of classes: what is judged after each number of them, and for whom there is none."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from metaray.algorithms import MAML, R2D2, Algorithm, ProtoMAML, ProtoNet
from metaray.algorithms.algorithm import start
from metaray.algorithms.task_shape import TaskShape
from metaray.data import ClassStore
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.sampler import sample_episode
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.learners.learner import Learner
from metaray.models import MLP
from metaray.tasks import Regression
from metaray.training.stream import require_streamable, stream_scores

ENDS = (2, 5, 8)
SPEC = EpisodeSpec(ways=8, shots=3, queries="rest")
MakeExperiment = Callable[..., Experiment]


def learner_of(source: ClassStore, algorithm: Algorithm, *, batch_norm: bool = False) -> Learner:
    model, prepared = MLP(hidden=(2,), batch_norm=batch_norm), source.preprocessing
    _, meta = start(algorithm, model, TaskShape(prepared.feature_shape, 3, preprocessing=prepared), seed=0)
    return Learner(algorithm, model, meta, prepared, EpisodeSpec(ways=3, shots=1, queries=2))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("algorithm", [ProtoNet(), R2D2(), ProtoMAML(inner_lr=0.01)], ids=lambda one: one.kind)
def test_scores_are_those_of_tasks_of_so_many_classes(
    tiny_source: ClassStore, algorithm: Algorithm, batch_norm: bool
) -> None:
    """By hand: the first classes of an episode adapted to at once, and asked for all their queries."""
    learner = learner_of(tiny_source, algorithm, batch_norm=batch_norm)
    told: list[int] = []
    found = stream_scores(learner, tiny_source, "meta-test", SPEC, ENDS, order=1, seed=5, tell=told.append)
    task = sample_episode(tiny_source, SPEC, "meta-test", 5, 1).task
    for count, score in zip(ENDS, found, strict=True):
        known, asked = (side.y < count for side in (task.support, task.query))
        adapted = learner.adapt(task.support.x[known], task.support.y[known])
        assert len(task.query.y[asked]) == count * 9
        assert score == pytest.approx(np.mean(np.array(adapted.predict(task.query.x[asked])) == task.query.y[asked]))
    assert told == list(ENDS)
    assert len({tuple(stream_scores(learner, tiny_source, "meta-test", SPEC, ENDS, order=i)) for i in range(3)}) == 3


def test_class_by_class(tiny_source: ClassStore) -> None:
    learner, told = learner_of(tiny_source, ProtoNet()), list[int]()
    options = {"order": 0, "seed": 1}
    together = stream_scores(learner, tiny_source, "meta-test", SPEC, ENDS, **options)  # type: ignore[arg-type]
    one_by_one = stream_scores(
        learner, tiny_source, "meta-test", SPEC, ENDS, order=0, seed=1, how="continue", tell=told.append
    )
    assert one_by_one == together, "class means do not depend on the order"
    assert told == [2, 3, 4, 5, 6, 7, 8]
    baseline = learner.baseline("class_means")
    scores = stream_scores(baseline, tiny_source, "meta-test", SPEC, ENDS, order=0)
    assert scores[0] > 0.9 and len(scores) == 3


def test_for_whom_there_is_no_stream(tiny_source: ClassStore) -> None:
    with pytest.raises(InputError, match=r"a maml learner has one output a class and is fixed to its 3 ways"):
        require_streamable(learner_of(tiny_source, MAML()))
    with pytest.raises(InputError, match="depend on the other queries of the same call"):
        require_streamable(learner_of(tiny_source, ProtoNet(batch_norm="transductive"), batch_norm=True))
    with pytest.raises(InputError, match="a stream is of classes, but the learner is for regression tasks of 1 value"):
        require_streamable(replace(learner_of(tiny_source, R2D2()), task=Regression()))
    require_streamable(learner_of(tiny_source, ProtoNet(batch_norm="transductive")))
