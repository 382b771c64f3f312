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
    """A frozen description of where tasks come from; it opens its files when they are first needed.

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
    """Names of the fields that describe how targets are learned and judged, rather than which data are used."""

    @property
    @abstractmethod
    def preprocessing(self) -> Preprocessing:
        """The preprocessing that turns a raw input into an example of this source."""

    @property
    def feature_shape(self) -> FeatureShape:
        """Shape of one example; its first axis is None if examples are ragged."""
        return self.preprocessing.feature_shape

    @property
    def task(self) -> TaskKind:
        """Kind of the source's tasks, known without opening files; classification by default."""
        return Classification()

    @property
    def drawn_together(self) -> str:
        """The part of the protocol that says which classes can meet in a task.

        Empty if these may be any classes of a split.
        """
        return ""

    @property
    def baselines(self) -> tuple[str, ...]:
        """Untrained baselines, besides the nearest neighbour, that are judged on the same episodes as every score.

        They are keys of `metaray.algorithms.per_task.BASELINES`. The first champion must surpass each of them.
        """
        return ()

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) over everything that decides which examples a sampled task holds."""

    @property
    def stamp(self) -> tuple[int, ...]:
        """Numbers that change when the files behind the fingerprint may have changed, and that are cheap to get.

        Empty, as by default, for a source whose tasks follow from its description alone.
        """
        return ()

    def verify(self) -> None:
        """Read everything that the source reads and compare it with the fingerprint, even if that was done before.

        Raises:
            InputError: If something is damaged; the message names it. A source without files never raises it.
        """

    @abstractmethod
    def check(self, split: Split, spec: EpisodeSpec) -> None:
        """Check that `split` can yield every task of `spec`.

        A plain spec asks for at most `spec.largest`. A source may also refuse what its tasks do not have: "rest" as
        queries if there is no end of examples, Meta-Dataset's sampling if there are no classes.

        Raises:
            InputError: If `split` cannot; the message has the numbers.
        """

    @abstractmethod
    def sample_task(self, draws: Draws, split: Split, spec: EpisodeSpec) -> Task:
        """Sample one task: a pure function of the arguments.

        `spec.draw(draws)` returns the sizes of a task of a plain spec. Call it before anything else is drawn; it draws
        nothing if the sizes are fixed.
        """

    def sample_tasks(self, draws: ManyDraws, split: Split, spec: EpisodeSpec) -> list[Task]:
        """Sample many tasks at once, bit for bit those that `sample_task` returns for each of the draws.

        By default this is a loop over `sample_task`. A source whose episodes all draw alike can override it and draw
        them side by side.

        Returns:
            Stacks of consecutive tasks of equal shape, each as long as possible.
        """
        return stacks_of(self.sample_task(one, split, spec) for one in draws.each())

    @property
    def lasting_examples(self) -> NDArray[Any] | None:
        """All examples of the source, [examples, *feature], if every task takes its inputs from them unchanged.

        They can then be kept on a device, and tasks be drawn by `sample_rows`. None if tasks are made in another way.
        """
        return None

    def sample_rows(self, draws: ManyDraws, split: Split, spec: EpisodeSpec) -> list[Task]:
        """Sample tasks as `sample_tasks` does, with indices into `lasting_examples` in place of inputs.

        See `metaray.data.rows`.
        """
        raise NotImplementedError(f"{self.kind} has no examples that last")

    @abstractmethod
    def count_tasks(self, split: Split, spec: EpisodeSpec) -> int:
        """Number of distinct tasks, labels and order aside; a lower bound if the spec has ranges."""

    def num_classes(self, split: Split) -> int:
        """Number of classes in `split`; 0, as by default, if labels mean the same in all tasks."""
        self._require_no_classes("num_classes")
        return 0

    def places(self, split: Split, class_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Index of each class among the classes of its split, 0 .. num_classes-1, in the shape of `class_ids`.

        All zero, as by default, if there are no classes.
        """
        self._require_no_classes("places")
        return np.zeros_like(class_ids)

    def class_name(self, class_id: int) -> str:
        """Name of the class with a global class id."""
        self._require_no_classes("class_name")
        return f"{self.kind} {class_id}"

    def group_name(self, class_id: int) -> str | None:
        """Name of the group (a patient, a user, an assay) that a whole task belongs to, by the task's class id.

        None if tasks do not belong to groups that can come again. If they do, reports also have an interval over
        groups, since many episodes of few groups are not that many independent ones.
        """
        return None

    def num_examples(self, split: Split) -> int:
        """Number of examples in `split`, over all classes.

        Raises:
            InputError: If the source has no examples that could be drawn one by one.
        """
        raise self._without_examples()

    def draw_examples(self, draws: Draws, split: Split, count: int) -> tuple[Compact, NDArray[np.int64]]:
        """Draw examples uniformly and without replacement, regardless of class: a pure function of the arguments.

        Returns:
            A new array of compact examples [count, *feature], and the examples' indices [count] in 0 .. num_examples-1.

        Raises:
            InputError: If the source has no examples that could be drawn one by one, or too few.
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
    """Detects that the data of a source change while it is in use.

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
