"""A source of binary tasks: whether a number lies above a threshold, which each task has one of its own."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from metaray.data.draws import Draws, Split
from metaray.data.preprocessing import VectorPreprocessing
from metaray.data.source import Source
from metaray.data.task import Side, Task
from metaray.tasks import Binary


class Thresholds(Source):
    """Positive are numbers above the threshold of a task.

    Attributes:
        one_sided: queries are positive alone, which is no binary task.
    """

    kind: ClassVar[str] = "tests.thresholds:Thresholds"

    one_sided: bool = False

    @property
    def preprocessing(self) -> VectorPreprocessing:
        return VectorPreprocessing(size=1)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        return (1,)

    @property
    def task(self) -> Binary:
        return Binary()

    @property
    def fingerprint(self) -> str:
        return f"thresholds {self.one_sided}"

    def check(self, split: Split, *, ways: int, shots: int, queries: int) -> None:
        pass

    def sample_task(self, draws: Draws, split: Split, *, ways: int, shots: int, queries: int) -> Task:
        threshold = draws.uniform(1) - 0.5
        support = self._side(draws, threshold, np.repeat([0, 1], shots))
        labels = np.ones(queries, np.int64) if self.one_sided else np.arange(max(2, queries)) % 2
        return Task(support, self._side(draws, threshold, labels), np.zeros(1, np.int64))

    def _side(self, draws: Draws, threshold: NDArray[np.float64], y: NDArray[Any]) -> Side[NDArray[Any]]:
        distance = draws.uniform(len(y))
        x = threshold + np.where(y == 1, distance, -distance)
        return Side(x.astype(np.float32)[:, None], y.astype(np.int64))

    def count_tasks(self, split: Split, *, ways: int, shots: int, queries: int) -> int:
        return 2**64

    def num_classes(self, split: Split) -> int:
        return 0

    def places(self, split: Split, class_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.zeros_like(class_ids)

    def class_name(self, class_id: int) -> str:
        return "threshold"
