"""What `repr` of a learner shows."""

import numpy as np

from metaray.algorithms import MAML, ProtoNet
from metaray.algorithms.algorithm import Algorithm, start
from metaray.algorithms.context import CLASSES
from metaray.algorithms.task_shape import TaskShape
from metaray.data.preprocessing import ImagePreprocessing, Preprocessing, VectorPreprocessing
from metaray.episodes.episode import EpisodeSpec
from metaray.learners.learner import Learner
from metaray.learners.one_line import spec_line
from metaray.models import MLP
from metaray.tasks import Classification, Regression, TaskKind


def learner_of(algorithm: Algorithm, preprocessing: Preprocessing, task: TaskKind = CLASSES) -> Learner:
    model = MLP(hidden=(5,), batch_norm=False)
    _, meta = start(algorithm, model, TaskShape(preprocessing.feature_shape, 2, task), seed=0)
    spec = EpisodeSpec(ways=2, shots=3, queries=1)
    return Learner(algorithm, model, meta, preprocessing, spec, step=600, task=task)


def test_a_learner_and_its_task_are_one_readable_line() -> None:
    learner = learner_of(MAML(), ImagePreprocessing(height=4, width=4))
    line = "Learner(MAML, MLP, images 1x4x4, 2-way (fixed) 3-shot, 97 parameters, after step 600)"
    assert repr(learner) == str(learner) == line
    task = learner.adapt(np.zeros((2, 4, 4), np.uint8), ["cat", "dog"])
    assert repr(task) == f"AdaptedTask(2 classes: 'cat', 'dog'; of {line})"
    free = learner_of(ProtoNet(), ImagePreprocessing(height=4, width=4))
    many = free.adapt(np.zeros((9, 4, 4), np.uint8), ["x" * 60 + str(number) for number in range(9)])
    assert repr(many).startswith("AdaptedTask(9 classes: 'xxx") and len(repr(many)) < 300 and "\n" not in repr(many)


def test_a_learner_of_values() -> None:
    learner = learner_of(MAML(), VectorPreprocessing(size=3), task=Regression())
    assert "inputs 3, 3-shot regression of 1 value, " in repr(learner)
    assert repr(learner.adapt(np.zeros((2, 3)), [1.0, 2.0])) == f"AdaptedTask(of {learner!r})"


def test_what_a_learner_of_ranges_was_judged_at() -> None:
    ranged = EpisodeSpec(ways=(2, 9), shots=(1, 5), queries="rest")
    assert spec_line(ranged, False, Classification()) == "2 to 9 ways, 1 to 5 shots"
    assert spec_line(EpisodeSpec.meta_dataset(), False, Classification()) == "5 to 50 ways, at most 500 shots in all"
    assert (
        spec_line(EpisodeSpec(shots=(1, 5), queries=1), False, Regression(target_size=2))
        == "1 to 5 shots regression of 2 values"
    )
