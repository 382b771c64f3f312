"""The interface of everything that yields tasks."""

import inspect
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from metaray.config import Config
from metaray.data.draws import Draws, Split
from metaray.data.episode_spec import EpisodeSpec
from metaray.data.many_draws import ManyDraws
from metaray.data.preprocessing import Preprocessing
from metaray.data.ragged import Compact, FeatureShape
from metaray.data.task import Task, stacks_of
from metaray.errors import InputError
from metaray.tasks import Classification, TaskKind


class Source(Config):
    """A frozen description of where tasks come from; it opens its files at first use.

    A source is sent between processes as its JSON and opened again there, never pickled with its data.
    """

    kind: ClassVar[str]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        old = "target_size" if hasattr(cls, "target_size") else None
        for name in ("check", "sample_task", "count_tasks"):
            method = getattr(cls, name)
            if callable(method) and "ways" in inspect.signature(method).parameters:
                old = name
        if old is not None:
            raise TypeError(
                f"{cls.__name__}.{old} is of an older interface: a source says its `task`, and its methods take an "
                "EpisodeSpec and return a Task; see docs/new_source.md"
            )
        if _place(cls, "sample_task") < _place(cls, "sample_tasks"):
            # Drawn many at once, tasks would be those of the class it is derived from.
            cls.sample_tasks = Source.sample_tasks  # type: ignore[method-assign]

    about_targets: ClassVar[tuple[str, ...]] = ()
    """Fields that say how targets are learned and judged, and nothing of which data these are."""

    @property
    @abstractmethod
    def preprocessing(self) -> Preprocessing:
        """What turns a raw input into an example of this source."""

    @property
    def feature_shape(self) -> FeatureShape:
        """The shape of one example; the first axis is None where they are ragged."""
        return self.preprocessing.feature_shape

    @property
    def task(self) -> TaskKind:
        """What kind of tasks it yields, known without opening files: telling classes apart, if it does not say."""
        return Classification()

    @property
    def drawn_together(self) -> str:
        """What the protocol of scores says of which classes meet in a task; empty where it may be any of a split."""
        return ""

    @property
    def baselines(self) -> tuple[str, ...]:
        """What else than the nearest neighbour needs no training and stands beside every score, on the same episodes.

        A first champion surpasses each. Keys of `metaray.algorithms.per_task.BASELINES`.
        """
        return ()

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
            InputError: If something is damaged; the message names it. A source that reads nothing has nothing to
                compare.
        """

    @abstractmethod
    def check(self, split: Split, spec: EpisodeSpec) -> None:
        """Raise InputError, with the numbers, if `split` cannot yield every task of `spec`.

        A plain spec asks for `spec.largest` at most. A source may also refuse what its tasks have not: queries that are
        the rest of a class where there is no end of examples, Meta-Dataset's sampling where there are no classes.
        """

    @abstractmethod
    def sample_task(self, draws: Draws, split: Split, spec: EpisodeSpec) -> Task:
        """Draw one task: a pure function of the arguments.

        `spec.draw(draws)` gives the sizes of a task of a plain spec; call it before anything else is drawn. Where they
        are numbers it draws nothing.
        """

    def sample_tasks(self, draws: ManyDraws, split: Split, spec: EpisodeSpec) -> list[Task]:
        """Draw many tasks at once: bit for bit what `sample_task` makes of the draws of each, which is the default.

        Where all episodes draw alike, tasks can be drawn side by side, without a loop over them.

        Returns:
            Stacks of consecutive tasks of equal shape, each as long as can be.
        """
        return stacks_of(self.sample_task(one, split, spec) for one in draws.each())

    @property
    def lasting_examples(self) -> NDArray[Any] | None:
        """[examples, *feature] all that there are, where every task takes its inputs from them as they are.

        They can then live on a device, and tasks be drawn by `sample_rows`. None where tasks are made otherwise.
        """
        return None

    def sample_rows(self, draws: ManyDraws, split: Split, spec: EpisodeSpec) -> list[Task]:
        """The tasks of `sample_tasks`, with places among `lasting_examples` for inputs; see `metaray.data.rows`."""
        raise NotImplementedError(f"{self.kind} has no examples that last")

    @abstractmethod
    def count_tasks(self, split: Split, spec: EpisodeSpec) -> int:
        """How many distinct tasks there are, labels and order aside; of a spec with ranges at least so many."""

    def num_classes(self, split: Split) -> int:
        """How many classes `split` has; none where labels mean the same in all tasks, and only then by default."""
        self._require_no_classes("num_classes")
        return 0

    def places(self, split: Split, class_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The place of each class among those of its split, 0 .. num_classes-1; the shape is that of `class_ids`.

        All zero where there are none, and only then by default.
        """
        self._require_no_classes("places")
        return np.zeros_like(class_ids)

    def class_name(self, class_id: int) -> str:
        """The name behind a global class id."""
        self._require_no_classes("class_name")
        return f"{self.kind} {class_id}"

    def group_name(self, class_id: int) -> str | None:
        """The name of the patient, the user, the assay that a whole task with this class id is of.

        None where tasks are of nothing that would come again. Where there are names, reports have an interval over
        groups, since many episodes of few groups are not so many independent ones.
        """
        return None

    def num_examples(self, split: Split) -> int:
        """How many examples `split` has, whatever their classes.

        Raises:
            InputError: The source has none that could be drawn one by one.
        """
        raise self._without_examples()

    def draw_examples(self, draws: Draws, split: Split, count: int) -> tuple[Compact, NDArray[np.int64]]:
        """Draw examples uniformly and without replacement, whatever their classes: a pure function of the arguments.

        Returns:
            A fresh array [count, *feature], compact, and [count] the examples' places, 0 .. num_examples-1.

        Raises:
            InputError: The source has none that could be drawn one by one, or too few.
        """
        raise self._without_examples()

    def _require_no_classes(self, method: str) -> None:
        if self.task.labels_vary:
            raise NotImplementedError(
                f"{type(self).__name__} yields {self.task.kind} tasks and does not define {method}"
            )

    def _without_examples(self) -> InputError:
        return InputError(f"{self.kind} has no examples to draw one by one, as class_store and glyphs have")


def _place(cls: type, name: str) -> int:
    """How far up in a class's ancestry an attribute is defined; 0 in itself."""
    return next(place for place, base in enumerate(cls.__mro__) if name in vars(base))


class SameData:
    """Notices when a source comes to yield other data while it is in use.

    Args:
        source: Source that is in use.
    """

    def __init__(self, source: Source) -> None:
        self._source, self._stamp, self._fingerprint = source, source.stamp, source.fingerprint

    def check(self) -> None:
        """Call this after something was drawn.

        Raises:
            InputError: If that may have been of other data.
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
