"""The interface of everything that yields tasks."""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaray.config import Config
from metaray.data.draws import Draws, Split
from metaray.data.episode_spec import EpisodeSpec
from metaray.data.preprocessing import Preprocessing
from metaray.errors import InputError


class TaskExamples(NamedTuple):
    """One sampled task. N ways, K shots, Q queries a class; rows are class-major.

    Where classes have different numbers of examples, read their sums for N*K and N*Q.

    Attributes:
        support_x: [N*K, *feature], compact (images stay uint8).
        support_y: [N*K] int64 labels 0 .. N-1; in regression (N = 1) float32 [K, target_size].
        query_x: [N*Q, *feature].
        query_y: [N*Q], or [Q, target_size].
        class_ids: [N] int64, the source-wide id of the class behind each label; in regression all zero.
    """

    support_x: NDArray[Any]
    support_y: NDArray[Any]
    query_x: NDArray[Any]
    query_y: NDArray[Any]
    class_ids: NDArray[np.int64]


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
    def target_size(self) -> int | None:
        """Values of a target in regression; None where targets are classes. Known without opening files."""
        return None

    @property
    def drawn_together(self) -> str:
        """What the protocol of scores says of which classes meet in a task; empty where it may be any of a split."""
        return ""

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
    def check(self, split: Split, spec: EpisodeSpec) -> None:
        """Raise InputError, with the numbers, if `split` cannot yield every task of `spec`.

        A plain spec asks for `spec.largest` at most. A source may also refuse what its tasks have not: queries that are
        the rest of a class where there is no end of examples, Meta-Dataset's sampling where there are no classes.
        """

    @abstractmethod
    def sample_task(self, draws: Draws, split: Split, spec: EpisodeSpec) -> TaskExamples:
        """Draw one task: a pure function of the arguments.

        `spec.draw(draws)` gives the sizes of a task of a plain spec; call it before anything else is drawn. Where they
        are numbers it draws nothing.
        """

    @abstractmethod
    def count_tasks(self, split: Split, spec: EpisodeSpec) -> int:
        """How many distinct tasks there are, labels and order aside; of a spec with ranges at least so many."""

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
