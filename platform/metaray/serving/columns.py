"""The columns of a learner's tables: what its pyfunc model takes and gives, and what CSV files hold."""

from typing import TYPE_CHECKING

from metaray.data.preprocessing.cells import number
from metaray.tasks.column import Column, numbered

if TYPE_CHECKING:
    from metaray.learners.learner import Learner

__all__ = ["MAP", "Column", "inputs_of", "number", "outputs_of", "target_names"]

MAP = "map"
"""The type of a column that holds a mapping of texts to numbers in each row; MLflow has no one word for it."""


def target_names(learner: "Learner") -> list[str]:
    """The columns of a target: label; in regression y, or y0, y1, ..."""
    return ["label"] if learner.target_size is None else numbered("y", learner.target_size)


def inputs_of(learner: "Learner") -> tuple[Column, ...]:
    """The columns of the table that holds support and query. Query rows leave what is not required empty."""
    if learner.target_size is None:
        targets = [Column("label", "string", required=False)]
    else:
        targets = [Column(name, "double", required=False) for name in target_names(learner)]
    return Column("role", "string"), *targets, *learner.preprocessing.columns


def outputs_of(learner: "Learner") -> tuple[Column, ...]:
    """The columns of the table that comes back."""
    if learner.target_size is not None:
        return tuple(Column(name, "double") for name in target_names(learner))
    plain = Column("label", "string"), Column("probability", "double"), Column("probabilities", "string")
    return *plain, Column("distribution", MAP)
