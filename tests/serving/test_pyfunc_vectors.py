"""Columns of vectors in one table for MLflow: lists and arrays as its signature takes them, wrong ones told by row."""

from typing import Any

import numpy as np
import pytest

from metaray.algorithms import ProtoNet
from metaray.algorithms.algorithm import start
from metaray.algorithms.task_shape import TaskShape
from metaray.data.preprocessing import TablePreprocessing, VectorColumn
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from metaray.learners.learner import Learner
from metaray.models import TableMLP
from metaray.serving.columns import VECTOR, inputs_of
from metaray.serving.pyfunc import PyfuncLearner, example_input
from metaray.tasks import Binary

SIZE = 8


def learner() -> Learner:
    prepared, model = TablePreprocessing(vectors=(VectorColumn(name="fingerprint", size=SIZE),)), TableMLP(hidden=(4,))
    shape = TaskShape(feature_shape=(SIZE,), ways=2, task=Binary(), preprocessing=prepared)
    _, meta = start(ProtoNet(), model, shape, seed=0)
    spec = EpisodeSpec(shots=1, queries=1)
    return Learner(algorithm=ProtoNet(), model=model, meta=meta, preprocessing=prepared, spec=spec, task=Binary())


@pytest.mark.parametrize("cell", [[1.0] * SIZE, np.ones(SIZE), np.ones(SIZE, dtype=np.uint8), [1] * SIZE], ids=str)
def test_cells_pass_the_signature(cell: Any) -> None:
    from mlflow.models.utils import _enforce_schema
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import Array

    made = learner()
    kinds = {VECTOR: Array("double")}
    schema = Schema([ColSpec(kinds.get(kind, kind), name, required=need) for name, kind, need in inputs_of(made)])
    table = example_input(made)
    table["fingerprint"] = [*table["fingerprint"][:2], cell, cell]
    expected = PyfuncLearner(made).predict(table)
    assert len(expected) == 2 and PyfuncLearner(made).predict(_enforce_schema(table, schema)).equals(expected)


def test_a_wrong_cell_is_told_by_its_row() -> None:
    table = example_input(learner())
    table["fingerprint"] = [*table["fingerprint"][:3], [1.0]]
    with pytest.raises(InputError, match="fingerprint has 1 numbers, but must have 8"):
        PyfuncLearner(learner()).predict(table)
