"""What `repr` of a learner shows."""

import numpy as np

from metaray.algorithms import MAML, ProtoNet
from metaray.algorithms.algorithm import Algorithm, start
from metaray.algorithms.context import CLASSES
from metaray.algorithms.task_shape import TaskShape
from metaray.data.preprocessing import ImagePreprocessing, Preprocessing, VectorPreprocessing
from metaray.episodes.episode import EpisodeSpec
from metaray.learners.learner import Learner
from metaray.models import MLP
from metaray.tasks import Regression, TaskKind


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
