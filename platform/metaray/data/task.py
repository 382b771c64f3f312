"""A sampled task: its support set and its query set."""

from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

A = TypeVar("A")


class Side(NamedTuple, Generic[A]):
    """Inputs and targets that go together: the support or the query of a task.

    Attributes:
        x: [n, *feature], and whatever leading axes a stack of them has.
        y: [n] int64 labels 0 .. N-1, or [n, target_size] float32 values.
    """

    x: A
    y: A


class Task(NamedTuple):
    """One task as a source yields it: compact (images stay uint8), and rows are class-major where there are classes.

    Attributes:
        support: what it is learned from.
        query: what it is judged on.
        class_ids: [N] int64, the source-wide id of the class behind each label; all zero where there are none.
    """

    support: Side[NDArray[Any]]
    query: Side[NDArray[Any]]
    class_ids: NDArray[np.int64]


def same_examples(one: Task, other: Task) -> bool:
    """Whether two tasks hold the same inputs and targets, whatever their classes are called."""
    pairs = zip((*one.support, *one.query), (*other.support, *other.query), strict=True)
    return all(np.array_equal(*pair) for pair in pairs)
