"""The columns of a learner's tables: what its pyfunc model takes and gives, and what CSV files hold."""

from typing import TYPE_CHECKING

from metaray.tasks.classes import MAP
from metaray.tasks.column import VECTOR, Column

if TYPE_CHECKING:
    from metaray.learners.learner import Learner

__all__ = ["MAP", "VECTOR", "Column", "inputs_of", "outputs_of", "target_names"]


def target_names(learner: "Learner") -> list[str]:
    """The columns of a target: label, or y, or y0, y1, ..."""
    return [column.name for column in learner.task.target_columns()]


def inputs_of(learner: "Learner") -> tuple[Column, ...]:
    """The columns of the table that holds support and query. Query rows leave what is not required empty."""
    return Column("role", "string"), *learner.task.target_columns(), *learner.preprocessing.columns


def outputs_of(learner: "Learner") -> tuple[Column, ...]:
    """The columns of the table that comes back."""
    return learner.task.prediction_columns()
