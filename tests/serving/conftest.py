"""Untrained learners: they adapt and predict like trained ones, only worse."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
from torch import Tensor

from metaray.algorithms.algorithm import start
from metaray.algorithms.maml import MAML
from metaray.algorithms.protonet import ProtoNet
from metaray.algorithms.task_shape import TaskShape
from metaray.data.preprocessing import ImagePreprocessing, Preprocessing, VectorPreprocessing
from metaray.episodes.episode import EpisodeSpec
from metaray.learners.learner import Learner
from metaray.models.mlp import MLP
from metaray.tasks import Regression

PREPROCESSING = ImagePreprocessing(height=8, width=8, invert=True)
SPEC = EpisodeSpec(ways=3, shots=1, queries=2)


def untrained(algorithm: MAML | ProtoNet) -> Learner:
    """A learner with seeded parameters."""
    model = MLP(hidden=(16,), batch_norm=False)
    _, meta = start(algorithm, model, TaskShape(PREPROCESSING.feature_shape, SPEC.ways), seed=0)
    return Learner(algorithm, model, meta, PREPROCESSING, SPEC)


@pytest.fixture(scope="session")
def proto_net() -> Learner:
    """Takes any number of classes."""
    return untrained(ProtoNet())


@pytest.fixture(scope="session")
def maml() -> Learner:
    """Fixed to 3 classes."""
    return untrained(MAML(inner_lr=0.1))


def untrained_regression(features: int, values: int) -> Learner:
    """A learner from `features` numbers to `values` numbers."""
    algorithm, model = MAML(inner_lr=0.1), MLP(hidden=(16,), batch_norm=False)
    _, meta = start(algorithm, model, TaskShape((features,), 1, Regression(target_size=values)), seed=0)
    spec = EpisodeSpec(shots=3, queries=2)
    return Learner(
        algorithm, model, meta, VectorPreprocessing(size=features), spec, task=Regression(target_size=values)
    )


@pytest.fixture(scope="session")
def curve() -> Learner:
    """From one number to one number."""
    return untrained_regression(1, 1)


@pytest.fixture(scope="session")
def field() -> Learner:
    """From two numbers to three numbers."""
    return untrained_regression(2, 3)


class Grid(Preprocessing):
    """Inputs that are tables of two by three numbers."""

    kind: ClassVar[str] = "grid"
    feature_shape: ClassVar[Any] = (2, 3)

    def normalize(self, x: Tensor) -> Tensor:
        """As they are."""
        return x


@pytest.fixture(scope="session")
def matrix() -> Learner:
    """From two by three numbers to one number."""
    algorithm, model = MAML(inner_lr=0.1), MLP(hidden=(16,), batch_norm=False)
    _, meta = start(algorithm, model, TaskShape((2, 3), 1, Regression()), seed=0)
    return Learner(algorithm, model, meta, Grid(), EpisodeSpec(shots=3, queries=2), task=Regression())


@pytest.fixture
def folder(proto_net: Learner, tmp_path: Path) -> Path:
    """A saved learner."""
    proto_net.save(tmp_path / "learner")
    return tmp_path / "learner"
