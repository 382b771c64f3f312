import re

import pytest

from metaray.errors import InputError
from metaray.learners.learner import Learner
from metaray.serving.columns import inputs_of, outputs_of
from metaray.tasks.cells import number


def test_columns_of_images(maml: Learner) -> None:
    assert inputs_of(maml) == (("role", "string", True), ("label", "string", False), ("image", "binary", True))
    assert [column.name for column in outputs_of(maml)] == ["label", "probability", "probabilities", "distribution"]


def test_columns_of_numbers(curve: Learner, field: Learner) -> None:
    assert inputs_of(curve) == (("role", "string", True), ("y", "double", False), ("x", "double", True))
    assert outputs_of(curve) == (("y", "double", True),)
    assert [column.name for column in inputs_of(field)] == ["role", "y0", "y1", "y2", "x0", "x1"]
    assert [column.name for column in outputs_of(field)] == ["y0", "y1", "y2"]


@pytest.mark.parametrize(("cell", "value"), [(1, 1.0), ("2.5", 2.5), (" -1e3 ", -1000.0)])
def test_a_number(cell: object, value: float) -> None:
    assert number(cell, "x", "row 3") == value


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("one", "row 3: x is 'one', not a number"),
        ("", "row 3: x is '', not a number"),
        (None, "row 3: x is None, not a number"),
        ("nan", "row 3: x is nan; give a finite number"),
        (float("inf"), "row 3: x is inf; give a finite number"),
    ],
)
def test_no_number(cell: object, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        number(cell, "x", "row 3")
