"""The interface of everything that yields tasks."""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from metaray.config import Config
from metaray.data.draws import Draws, Split
from metaray.data.preprocessing import Preprocessing
from metaray.data.task import Task
from metaray.errors import InputError
from metaray.tasks import Classification, TaskKind


class Source(Config):
    """A frozen description of where tasks come from; it opens its files at first use.

    A source is sent between processes as its JSON and opened again there, never pickled with its data.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def preprocessing(self) -> Preprocessing:
        """What turns a raw input into an example of this source."""

    @property
    @abstractmethod
    def feature_shape(self) -> tuple[int, ...]:
        """The shape of one example."""

    @property
    def task(self) -> TaskKind:
        """What kind of tasks it yields, known without opening files: telling classes apart, if it does not say."""
        return Classification()

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) over everything that decides which examples a sampled task holds."""

    @property
    def stamp(self) -> tuple[int, ...]:
        """Changes where what the fingerprint covers may have changed, and costs next to nothing to ask for.

        A source whose description alone decides what it yields has nothing to say here.
        """
        return ()

    def verify(self) -> None:
        """Compare everything that the source reads with its fingerprint, also where that was done before.

        Raises:
            InputError: naming what is damaged. A source that reads nothing has nothing to compare.
        """

    @abstractmethod
    def check(self, split: Split, *, ways: int, shots: int, queries: int) -> None:
        """Raise InputError, with the numbers, if `split` cannot yield such tasks."""

    @abstractmethod
    def sample_task(self, draws: Draws, split: Split, *, ways: int, shots: int, queries: int) -> Task:
        """Draw one task: a pure function of the arguments."""

    @abstractmethod
    def count_tasks(self, split: Split, *, ways: int, shots: int, queries: int) -> int:
        """How many distinct tasks there are, labels and order aside."""

    @abstractmethod
    def num_classes(self, split: Split) -> int:
        """How many classes `split` has, 0 in regression."""

    @abstractmethod
    def places(self, split: Split, class_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The place of each class among those of its split, 0 .. num_classes-1; the shape is that of `class_ids`."""

    @abstractmethod
    def class_name(self, class_id: int) -> str:
        """The name behind a global class id."""

    def num_examples(self, split: Split) -> int:
        """How many examples `split` has, whatever their classes.

        Raises:
            InputError: the source has none that could be drawn one by one.
        """
        raise self._without_examples()

    def draw_examples(self, draws: Draws, split: Split, count: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Draw examples uniformly and without replacement, whatever their classes: a pure function of the arguments.

        Returns:
            A fresh array [count, *feature], compact, and [count] the examples' places, 0 .. num_examples-1.

        Raises:
            InputError: the source has none that could be drawn one by one, or too few.
        """
        raise self._without_examples()

    def _without_examples(self) -> InputError:
        return InputError(f"{self.kind} has no examples to draw one by one, as class_store and glyphs have")


class SameData:
    """Notices when a source comes to yield other data while it is in use.

    Args:
        source: in use.
    """

    def __init__(self, source: Source) -> None:
        self._source, self._stamp, self._fingerprint = source, source.stamp, source.fingerprint

    def check(self) -> None:
        """Call this after something was drawn.

        Raises:
            InputError: if that may have been of other data.
        """
        stamp = self._source.stamp
        if stamp == self._stamp:
            return
        found = self._source.fingerprint
        if found != self._fingerprint:
            raise InputError(
                "the data changed while they were in use: the source's fingerprint was "
                f"{self._fingerprint[:12]}..., now it is {found[:12]}...; bring the former back, and the same --run "
                "goes on"
            )
        self._stamp = stamp
