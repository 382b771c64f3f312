"""The columns of a learner's tables: what its pyfunc model takes and gives, and what CSV files hold."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaray.data.preprocessing import ImagePreprocessing
from metaray.errors import InputError

if TYPE_CHECKING:
    from metaray.learners.learner import Learner


MAP = "map"
"""The type of a column that holds a mapping of texts to numbers in each row; MLflow has no one word for it."""


class Column(NamedTuple):
    """A column of a table: its name, its type in MLflow's words, and whether it must be there."""

    name: str
    type: str
    required: bool = True


def takes_images(learner: "Learner") -> bool:
    """Whether its inputs are images; else they are vectors of numbers."""
    return isinstance(learner.preprocessing, ImagePreprocessing)


def feature_names(learner: "Learner") -> list[str]:
    """The columns of an input of numbers: x, or x0, x1, ...; of several axes the last varies fastest."""
    return _numbered("x", math.prod(learner.preprocessing.feature_shape))


def inputs(rows: Any, learner: "Learner") -> NDArray[np.float64]:
    """Rows of the columns of `feature_names`, as inputs [n, *feature]."""
    return np.asarray(rows, dtype=np.float64).reshape(-1, *learner.preprocessing.feature_shape)


def target_names(learner: "Learner") -> list[str]:
    """The columns of a regression target: y, or y0, y1, ..."""
    assert learner.task.target_size_told is not None
    return _numbered("y", learner.task.target_size_told)


def inputs_of(learner: "Learner") -> tuple[Column, ...]:
    """The columns of the table that holds support and query. Query rows leave what is not required empty."""
    if learner.task.target_size_told is None:
        targets = [Column("label", "string", required=False)]
    else:
        targets = [Column(name, "double", required=False) for name in target_names(learner)]
    if takes_images(learner):
        return Column("role", "string"), *targets, Column("image", "binary")
    return Column("role", "string"), *targets, *(Column(name, "double") for name in feature_names(learner))


def outputs_of(learner: "Learner") -> tuple[Column, ...]:
    """The columns of the table that comes back."""
    if learner.task.target_size_told is not None:
        return tuple(Column(name, "double") for name in target_names(learner))
    plain = Column("label", "string"), Column("probability", "double"), Column("probabilities", "string")
    return *plain, Column("distribution", MAP)


def number(cell: object, column: str, where: str) -> float:
    """The number in a cell.

    Raises:
        InputError: naming `where` it is, if it is none or not finite.
    """
    try:
        value = float(cell)  # type: ignore[arg-type]
    except OverflowError:
        raise InputError(f"{where}: {column} is too large a number; give one below 1.8e308") from None
    except (TypeError, ValueError):
        raise InputError(f"{where}: {column} is {cell!r}, not a number") from None
    if not math.isfinite(value):
        raise InputError(f"{where}: {column} is {value:g}; give a finite number")
    return value


def _numbered(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name}{i}" for i in range(count)]
