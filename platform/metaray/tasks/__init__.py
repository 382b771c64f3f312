"""Task kinds: what a task asks for, and how answers are judged. `TASK_KINDS` is the explicit dict of them."""

from metaray.tasks.binary import Binary
from metaray.tasks.classification import Classification
from metaray.tasks.regression import Regression
from metaray.tasks.task_kind import TaskKind

TASK_KINDS: dict[str, type[TaskKind]] = {
    "classification": Classification,
    "binary": Binary,
    "regression": Regression,
}

__all__ = ["TASK_KINDS", "Binary", "Classification", "Regression", "TaskKind"]
