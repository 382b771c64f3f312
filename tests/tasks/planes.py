"""A source of binary tasks: points of the plane, of which the positives lie on one side of a line of the task's own."""

import hashlib
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from metaray.data.draws import Draws, Split
from metaray.data.episode_spec import EpisodeSpec
from metaray.data.preprocessing import VectorPreprocessing
from metaray.data.source import Source
from metaray.data.task import Side, Task
from metaray.tasks import Binary


class Planes(Source):
    """K negatives and K positives to learn from, Q negatives and fewer positives to be judged on.

    Attributes:
        positives: query examples that are positive; None as many as negatives.
    """

    kind: ClassVar[str] = "planes"

    positives: int | None = None

    @property
    def task(self) -> Binary:
        return Binary()

    @property
    def preprocessing(self) -> VectorPreprocessing:
        return VectorPreprocessing(size=2)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def check(self, split: Split, spec: EpisodeSpec) -> None:
        """There is no end to such tasks."""

    def count_tasks(self, split: Split, spec: EpisodeSpec) -> int:
        return 2**64

    def sample_task(self, draws: Draws, split: Split, spec: EpisodeSpec) -> Task:
        _, shots, queries = spec.draw(draws)
        assert queries is not None, spec
        angle = 2 * np.pi * draws.uniform(1)
        across, along = np.stack([np.cos(angle), np.sin(angle)]), np.stack([-np.sin(angle), np.cos(angle)])

        def side(negatives: int, positives: int) -> Side[NDArray[np.int64]]:
            y = np.arange(2).repeat([negatives, positives])
            far, aside = draws.uniform(len(y)) + 0.1, draws.uniform(len(y)) - 0.5
            x = (across * far * (2 * y - 1) + along * aside).T
            return Side(x.astype(np.float32), y.astype(np.int64))

        return Task(side(shots, shots), side(queries, self.positives or queries), np.zeros(1, dtype=np.int64))
