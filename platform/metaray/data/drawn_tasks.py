"""Tasks of what was drawn from a class store: labels, class ids, and inputs, copied or named."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from metaray.data.class_sampling import DrawnTask
from metaray.data.gathering import gathered
from metaray.data.inputs import mapped
from metaray.data.opened_store import OpenedStore
from metaray.data.ragged import Compact
from metaray.data.task import Side, Task


def task_of(opened: OpenedStore, drawn: DrawnTask, inputs: Callable[..., tuple[Compact, ...]] = gathered) -> Task:
    """Make the inputs and targets of a drawn task, or of B tasks one after the other.

    Args:
        opened: The store.
        drawn: Classes and examples of the task.
        inputs: Function that makes inputs from the store's examples and row indices: `gathered`, or
            `metaray.data.rows.places`.
    """
    labels = np.arange(len(drawn.base), dtype=np.int64)
    support, query = inputs(
        opened.file.examples,
        (drawn.support[:, None], drawn.turns.repeat(drawn.shots)),
        (drawn.query[:, None], drawn.turns.repeat(drawn.queries)),
    )
    return Task(
        support=Side(support, labels.repeat(drawn.shots)),
        query=Side(query, labels.repeat(drawn.queries)),
        class_ids=drawn.base * opened.turns + drawn.turns,
    )


def stack_of(tasks: Task, count: int) -> Task:
    """Reshape `count` equal tasks that lie one after the other into a stack."""
    support, query, class_ids = tasks
    ways = len(class_ids) // count
    return Task(_rows(support, count, ways), _rows(query, count, ways), class_ids.reshape(count, ways))


def _rows(side: Side[NDArray[np.int64]], count: int, ways: int) -> Side[NDArray[np.int64]]:
    x = mapped(lambda part: part.reshape(count, -1, *part.shape[1:]), side.x)
    return Side(x, side.y.reshape(count, -1) % ways)
