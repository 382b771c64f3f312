"""A sampled task: its support set and its query set."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from metaray.data.inputs import parts_of, shapes_of, stacked

A = TypeVar("A")


class Side(NamedTuple, Generic[A]):
    """Inputs and targets of the support or the query set of a task.

    Attributes:
        x: Inputs [n, *feature], with the leading axes of a stack; or a flat dict of named arrays with these axes.
        y: Targets: int64 labels [n] in 0 .. N-1, or float32 values [n, target_size].
    """

    x: Any
    y: A


class Task(NamedTuple):
    """One task as a source yields it, or a stack of B tasks of equal shape with a leading axis B.

    Attributes:
        support: The support set, which the task is learned from.
        query: The query set, which the task is judged on.
        class_ids: Global ids [N], int64, of the class behind each label. If labels mean the same in all tasks, [1]: the
            id of the task's group (see `Source.group_name`), or zero.
    """

    support: Side[NDArray[Any]]
    query: Side[NDArray[Any]]
    class_ids: NDArray[np.int64]


def shape_of(task: Task) -> tuple[tuple[int, ...], ...]:
    """The shapes of a task's arrays; tasks of equal shapes can be stacked."""
    support, query, class_ids = task
    return (*shapes_of(support.x), support.y.shape, *shapes_of(query.x), query.y.shape, class_ids.shape)


def stacks_of(tasks: Iterable[Task]) -> list[Task]:
    """Neighbours of equal shape put together, each stack as long as can be."""
    return [_stacked(list(alike)) for _, alike in groupby(tasks, key=shape_of)]


def _stacked(tasks: Sequence[Task]) -> Task:
    support, query = (
        Side(stacked([side.x for side in alike]), np.stack([side.y for side in alike]))
        for alike in zip(*((task.support, task.query) for task in tasks), strict=True)
    )
    return Task(support, query, np.stack([task.class_ids for task in tasks]))


def same_examples(one: Task, other: Task) -> bool:
    """Whether two tasks have the same inputs and targets, whatever their class ids are."""
    found, wanted = ([array for side in task[:2] for array in (*parts_of(side.x), side.y)] for task in (one, other))
    return len(found) == len(wanted) and all(map(np.array_equal, found, wanted))
