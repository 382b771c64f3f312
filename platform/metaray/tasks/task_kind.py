"""The interface of every kind of task: what is asked of a network, and how its answers are judged, read and shown."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from pydantic import model_validator

from metaray.config import Config
from metaray.errors import InputError
from metaray.tasks.column import Column
from metaray.tasks.score import SCORES, Score

if TYPE_CHECKING:  # sampler processes need no torch, and start a second sooner without it
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor


class Targets(NamedTuple):
    """The targets of a support set, as a user gave them.

    Attributes:
        y: Targets as the kind's `loss` takes them.
        classes: Labels in the order of the outputs; none where targets are values.
        flat: Whether values were given as [n], so that predictions are, too.
    """

    y: Tensor
    classes: tuple[Hashable, ...] = ()
    flat: bool = False


class TaskKind(Config):
    """A kind of task. Nobody else asks which one it is.

    N stands for the ways of an episode, n for a number of examples. A kind of one's own is a class below this one; it
    is named by its import path, as algorithms and models of one's own are.

    Attributes:
        kind: Its name in files.
        baselines: What fits a task by its support alone, besides the nearest neighbour (`nearest`) that every kind has;
            keys of `metaray.algorithms.per_task.BASELINES`.
        item_baselines: What fits a task of a table whose rows name an item that groups share, besides those; keys of
            the same table.
        has_classes: Whether a target is one of a few classes, so that the examples of a class can be put together.
        labels_vary: Whether a label stands for another class in each task, so that joint training tells all classes of
            meta-train apart; else outputs mean the same in all tasks.
        free_scale: Whether the scale of outputs is free, as that of logits is; else it is that of the targets.
        verb: What a learner does, for descriptions.
        target_word: What one target is called.
    """

    kind: ClassVar[str]
    baselines: ClassVar[tuple[str, ...]] = ()
    item_baselines: ClassVar[tuple[str, ...]] = ()
    has_classes: ClassVar[bool] = False
    labels_vary: ClassVar[bool] = False
    free_scale: ClassVar[bool] = False
    verb: ClassVar[str]
    target_word: ClassVar[str] = "target"

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        _require_known(cls, getattr(cls, "score", None))

    @model_validator(mode="after")
    def _has_a_known_score(self) -> Self:
        _require_known(type(self), self.score)
        return self

    def __str__(self) -> str:
        return f"{self.kind} tasks"

    # What is asked of a network.

    @abstractmethod
    def labels(self, ways: int) -> int:
        """The number of classes that `loss` tells apart in an episode of so many ways; 1 where targets are values."""

    @abstractmethod
    def outputs(self, ways: int) -> int:
        """How many numbers a prediction has."""

    @abstractmethod
    def check_ways(self, fewest: int, most: int) -> None:
        """Refuse ways that no task of this kind has.

        Args:
            fewest: Ways of an episode.
            most: Ways of an episode.

        Raises:
            ValueError: If it has not so many; the message says how many it has.
        """

    # How answers are judged.

    @property
    @abstractmethod
    def score(self) -> Score:
        """What judges predictions of one task; one of `metaray.tasks.score.SCORES`.

        A kind that is always judged alike has it as a class variable.
        """

    def is_alike(self, other: TaskKind) -> bool:
        """Whether a learner for these tasks is one for the others: how they are judged does not matter."""
        return self == other

    @abstractmethod
    def loss(self, output: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        """The mean loss of predictions.

        Args:
            output: [n, outputs].
            y: [n] labels, or [n, outputs] values.
            weights: [n] of the examples, not negative; None counts all alike.
        """

    @abstractmethod
    def judged(self, output: Tensor, y: Tensor) -> Tensor:
        """The score of the predictions for one task, []; arguments as for `loss`. Works inside `torch.vmap`."""

    @property
    def further(self) -> tuple[Score, ...]:
        """What else is reported of meta-test besides `score`, which alone decides; of `metaray.tasks.score.SCORES`."""
        return ()

    def judged_further(self, output: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """Each of `further` for one task, [] each; arguments as for `loss`. Works inside `torch.vmap`."""
        return ()

    # What algorithms build on.

    @abstractmethod
    def aims(self, y: Tensor, ways: int, dtype: torch.dtype) -> Tensor:
        """What a linear fit aims at, [n, outputs]: one-hot labels, or the values themselves."""

    @abstractmethod
    def seen(self, y: Tensor, dtype: torch.dtype) -> Tensor:
        """What an encoder of examples sees of their targets besides their place: [n, 0] of labels, else the values."""

    @abstractmethod
    def pooled(self, encoded: Tensor, y: Tensor, ways: int) -> Tensor:
        """One vector of a set of encoded examples [n, E], whatever their order: the means of its classes one after the
        other, or the mean of all."""

    def pools(self, y: Tensor, ways: int, dtype: torch.dtype) -> Tensor | None:
        """Which examples each mean of `pooled` is over, [n, means] of 0 and 1; None if it is no matter of means."""
        return None

    @abstractmethod
    def nearest(self, distances: Tensor, y: Tensor, ways: int) -> Tensor:
        """Predictions [n, outputs] by the nearest of m known examples, from distances [n, m] to them."""

    @abstractmethod
    def distribution_size(self, ways: int) -> int:
        """How many numbers describe what is believed about one target."""

    @abstractmethod
    def expected(self, distribution: Tensor) -> Tensor:
        """The prediction [n, outputs] in such numbers [n, distribution_size]."""

    def spread(self, distribution: Tensor) -> Tensor | None:
        """The standard deviations [n, outputs] in such numbers, as networks learn values; None of classes."""
        return None

    @abstractmethod
    def surprise(self, distribution: Tensor, y: Tensor) -> Tensor:
        """Minus the log-density of targets under such numbers, mean over the examples."""

    def guesses(self, means: Tensor) -> Tensor:
        """Predictions [n, outputs] that put each target at a mean of targets [n], which is in their own units.

        Raises:
            InputError: If targets have no mean.
        """
        raise InputError(f"targets of {self} have no mean")

    # What sources yield.

    def check_task(self, support_y: NDArray[Any], query_y: NDArray[Any]) -> None:
        """Refuse a sampled task that cannot be learned or judged.

        Raises:
            InputError: If it lacks something; the message says what.
        """

    def centre(self, support_y: NDArray[Any]) -> NDArray[Any] | None:
        """What is subtracted from the targets of a task, and added to its predictions, as its support says.

        Args:
            support_y: [n, outputs] values.

        Returns:
            [outputs], of their type; None where nothing is.
        """
        return None

    # What users bring and get.

    @abstractmethod
    def read(self, y: Any) -> Targets:
        """The targets of a support set as users hold them: a list, an array, a tensor, a column, an iterator.

        Args:
            y: The targets.

        Raises:
            InputError: If something can't be read; the message names it.
        """

    def read_more(self, y: Any, classes: Sequence[Hashable]) -> Targets:
        """The targets of further examples of a task, of which there may be any number; read as `read` does.

        Args:
            y: The targets.
            classes: Classes of the task so far, which keep their places; the result's are these and perhaps more.

        Raises:
            InputError: Naming what can't be read, or does not go with the task's own.
        """
        found = self.read(y)
        if found.classes != tuple(classes):
            raise InputError(f"y has the classes {list(found.classes)}, but the task has {list(classes)}")
        return found

    @abstractmethod
    def probabilities(self, output: Tensor) -> NDArray[np.float32]:
        """Probabilities of the classes, [n, classes].

        Raises:
            InputError: If predictions are values.
        """

    @abstractmethod
    def values(self, output: Tensor, flat: bool) -> NDArray[np.float32]:
        """The predicted values, [n, outputs], or [n] where `flat`.

        Raises:
            InputError: If predictions are classes.
        """

    @abstractmethod
    def predictions(
        self, output: Tensor, classes: Sequence[Hashable], flat: bool
    ) -> list[Hashable] | NDArray[np.float32]:
        """What a user gets: a label each, or values."""

    @abstractmethod
    def found_classes(self, output: Tensor) -> list[int] | None:
        """The place of the predicted class of each example; None where predictions are values."""

    @abstractmethod
    def check_classes(self, classes: Sequence[Hashable], ways: int | None, flat: bool) -> None:
        """Refuse the labels of an adapted task that was saved, if no task of this kind has such.

        Raises:
            ValueError: If they do not fit; the message says what does not.
        """

    @abstractmethod
    def target_columns(self) -> tuple[Column, ...]:
        """The columns that hold the targets of a support set; query rows leave them empty."""

    @abstractmethod
    def prediction_columns(self) -> tuple[Column, ...]:
        """The columns of what comes back."""

    @abstractmethod
    def from_cells(self, rows: Sequence[Sequence[Any]], names: Sequence[str], where: Callable[[int], str]) -> Any:
        """What `read` takes, from rows of the cells of `target_columns`; those of a CSV file are texts.

        Args:
            rows: [n] of as many cells as there are columns.
            names: Names that the table at hand has for the columns.
            where: Names row i of these in messages.

        Raises:
            InputError: If a cell holds no such thing; the message names it.
        """

    @abstractmethod
    def prediction_cells(self, output: Tensor, classes: Sequence[Hashable]) -> dict[str, Any]:
        """The cells of `prediction_columns`, a list or an array a column."""

    @abstractmethod
    def example_targets(self, ways: int | None, shots: int) -> list[list[Any]]:
        """Rows of cells of `target_columns` for a small made-up support set.

        Args:
            ways: Number of ways that the learner is fixed to; None if it takes any.
            shots: Number of shots that the learner was judged at.
        """

    # How it is told.

    @abstractmethod
    def told(self, whole: str, shots: str) -> str:
        """A learner's tasks in a few words, as in "5-way (fixed) 1-shot".

        Args:
            whole: Its ways and shots in words.
            shots: The shots alone.
        """

    def chance(self, guessing: float) -> float | None:
        """The mean score of guesses that know nothing; None where that depends on the tasks.

        Args:
            guessing: The share of right guesses among as many classes as the episodes have ways.
        """
        return None

    @property
    def target_size_told(self) -> int | None:
        """How many numbers a target has; None where it is a label."""
        return None if self.has_classes else self.outputs(1)

    @property
    def is_curve(self) -> bool:
        """Whether predictions of tasks with inputs of one number can be drawn as a curve."""
        return False


def _require_known(cls: type, score: object) -> None:
    """Refuse a score that results cannot hold; what depends on a kind's fields is seen when there are any."""
    if isinstance(score, Score) and SCORES.get(score.name) != score:
        raise TypeError(f"{cls.__name__}.score is {score}; take one of metaray.tasks.score.SCORES")
