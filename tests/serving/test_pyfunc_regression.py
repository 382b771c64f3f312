"""Support and query of numbers in one table."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from metaray.errors import InputError
from metaray.learners.learner import Learner
from metaray.serving.columns import inputs_of, outputs_of
from metaray.serving.pyfunc import PyfuncLearner, example_input

ROWS = [("query", None, 2.0), ("support", 1.0, 0.0), ("support", 3.0, 1.0), ("query", np.nan, 0.5)]


def table(*rows: tuple[Any, ...]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["role", "y", "x"])


def test_a_row_a_query_in_order(curve: Learner) -> None:
    result = PyfuncLearner(curve).predict(table(*ROWS))
    assert list(result.columns) == ["y"] and list(result.index) == [0, 3] and result["y"].dtype == np.float64
    expected = curve.adapt([0.0, 1.0], [1.0, 3.0]).predict_values([2.0, 0.5])
    assert result["y"].tolist() == expected.tolist()


def test_several_numbers(field: Learner) -> None:
    rows = [("support", 1, 2, 3, 0.5, 0.6), ("support", 4, 5, 6, 0.7, 0.8), ("query", None, None, None, 1.0, 2.0)]
    given = pd.DataFrame(rows, columns=["role", "y0", "y1", "y2", "x0", "x1"])
    expected = field.adapt([[0.5, 0.6], [0.7, 0.8]], [[1, 2, 3], [4, 5, 6]]).predict_values([[1.0, 2.0]])
    assert PyfuncLearner(field).predict(given).to_numpy().tolist() == expected.tolist()
    shuffled = given[["x1", "y2", "role", "y0", "x0", "y1"]]
    assert PyfuncLearner(field).predict(shuffled).to_numpy().tolist() == expected.tolist()


def test_inputs_of_two_axes(matrix: Learner) -> None:
    rows = [("support", 1, *range(6)), ("query", None, *range(1, 7))]
    given = pd.DataFrame(rows, columns=["role", "y", *(f"x{i}" for i in range(6))])
    expected = matrix.adapt([[[0, 1, 2], [3, 4, 5]]], [1]).predict_values([[[1, 2, 3], [4, 5, 6]]])
    assert PyfuncLearner(matrix).predict(given)["y"].tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (table(*ROWS[1:3]), "no query rows"),
        (table(*ROWS, ("support", None, 1.0)), "row 4: a support row needs a y"),
        (table(*ROWS, ("support", "high", 1.0)), "row 4: y is 'high', not a number"),
        (table(*ROWS, ("query", None, None)), "row 4: x is nan; give a finite number"),
        (table(*ROWS, ("query", None, np.inf)), "row 4: x is inf; give a finite number"),
        (table(*ROWS).drop(columns="x"), "lacks the column 'x'; it has ['role', 'y']"),
        (table(*ROWS).rename(columns={"y": "label"}), "lacks the column 'y'"),
        (table(*ROWS).assign(image=b""), "unknown column 'image'"),
    ],
)
def test_wrong_input(given: pd.DataFrame, message: str, curve: Learner) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        PyfuncLearner(curve).predict(given)


def test_the_example_is_valid(curve: Learner, field: Learner, matrix: Learner) -> None:
    for learner in (curve, field, matrix):
        example = example_input(learner)
        assert list(example.columns) == [column.name for column in inputs_of(learner)]
        assert (example["role"] == "support").sum() == learner.spec.shots
        result = PyfuncLearner(learner).predict(example)
        assert len(result) == 2 and list(result.columns) == [column.name for column in outputs_of(learner)]
