"""A sampled task: its support set and its query set."""

from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from metaray.data.inputs import parts_of

A = TypeVar("A")


class Side(NamedTuple, Generic[A]):
    """Inputs and targets that go together: the support or the query of a task.

    Attributes:
        x: [n, *feature], and whatever leading axes a stack of them has; or a flat dict of named arrays with these axes.
        y: [n] int64 labels 0 .. N-1, or [n, target_size] float32 values.
    """

    x: Any
    y: A


class Task(NamedTuple):
    """One task as a source yields it: compact (images stay uint8), and rows are class-major where there are classes.

    Attributes:
        support: what it is learned from.
        query: what it is judged on.
        class_ids: [N] int64, the source-wide id of the class behind each label. Where labels mean the same in all
            tasks, [1]: the id of the group that the whole task is of (see `Source.group_name`), or zero.
    """

    support: Side[NDArray[Any]]
    query: Side[NDArray[Any]]
    class_ids: NDArray[np.int64]


def same_examples(one: Task, other: Task) -> bool:
    """Whether two tasks hold the same inputs and targets, whatever their classes are called."""
    found, wanted = ([array for side in task[:2] for array in (*parts_of(side.x), side.y)] for task in (one, other))
    return len(found) == len(wanted) and all(map(np.array_equal, found, wanted))
