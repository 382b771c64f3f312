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
    """The targets of a support set, read from what a user gave.

    Attributes:
        y: Targets as the kind's `loss` takes them.
        classes: Labels in the order of the outputs; empty if targets are values.
        flat: Whether values were given as [n], so that predictions have that shape, too.
    """

    y: Tensor
    classes: tuple[Hashable, ...] = ()
    flat: bool = False


class TaskKind(Config):
    """A kind of task: it defines outputs, loss, scores and how targets are read and predictions returned.

    N is the number of ways of an episode, n a number of examples. To add a kind, derive a class from this one; its
    import path names it in files, as for algorithms and models of the user's own.

    Attributes:
        kind: Name of the kind in files.
        baselines: Baselines that fit a task by its support set alone, besides `nearest`, the nearest neighbour, which
            every kind has; keys of `metaray.algorithms.per_task.BASELINES`.
        item_baselines: Further baselines for tables whose rows name an item (such as a film) that groups share; keys of
            the same table.
        has_classes: Whether a target is one of a few classes, so that the examples of a class can be grouped.
        labels_vary: Whether a label stands for another class in each task, so that joint training tells all classes of
            meta-train apart. If not, outputs mean the same in all tasks.
        free_scale: Whether the scale of the outputs is free, as it is for logits; if not, it is that of the targets.
        verb: Verb for what a learner does, used in descriptions.
        target_word: Word for one target, used in descriptions.
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
        """The number of classes that `loss` tells apart in an episode with this many ways; 1 if targets are values."""

    @abstractmethod
    def outputs(self, ways: int) -> int:
        """The number of outputs of a prediction."""

    @abstractmethod
    def check_ways(self, fewest: int, most: int) -> None:
        """Check that tasks of this kind can have these numbers of ways.

        Args:
            fewest: Fewest ways of an episode.
            most: Most ways of an episode.

        Raises:
            ValueError: If they cannot; the message says which numbers are possible.
        """

    # How answers are judged.

    @property
    @abstractmethod
    def score(self) -> Score:
        """The score by which the predictions for a task are judged, one of `metaray.tasks.score.SCORES`.

        A kind whose score never varies has it as a class variable.
        """

    def is_alike(self, other: TaskKind) -> bool:
        """Whether a learner for tasks of the other kind fits these tasks, too; scores are not compared."""
        return self == other

    @abstractmethod
    def loss(self, output: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        """The mean loss of predictions.

        Args:
            output: Predictions [n, outputs].
            y: Targets: labels [n], or values [n, outputs].
            weights: Weights [n] of the examples, not negative; None weights all equally.
        """

    @abstractmethod
    def judged(self, output: Tensor, y: Tensor) -> Tensor:
        """The score of one task's predictions, a scalar; arguments as for `loss`. Works inside `torch.vmap`."""

    @property
    def further(self) -> tuple[Score, ...]:
        """Scores reported for meta-test beside `score`, which alone decides.

        They are some of `metaray.tasks.score.SCORES`.
        """
        return ()

    def judged_further(self, output: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """The scores named by `further` for one task, a scalar each; arguments as for `loss`.

        Works inside `torch.vmap`.
        """
        return ()

    # What algorithms build on.

    @abstractmethod
    def aims(self, y: Tensor, ways: int, dtype: torch.dtype) -> Tensor:
        """Targets of a linear fit [n, outputs]: one-hot labels, or the values themselves."""

    @abstractmethod
    def seen(self, y: Tensor, dtype: torch.dtype) -> Tensor:
        """Targets as an encoder of examples sees them: [n, 0] for labels, otherwise the values."""

    @abstractmethod
    def pooled(self, encoded: Tensor, y: Tensor, ways: int) -> Tensor:
        """Pool encoded examples [n, E] into one vector, independent of their order.

        It is the concatenation of the means of the classes, or the mean of all examples.
        """

    def pools(self, y: Tensor, ways: int, dtype: torch.dtype) -> Tensor | None:
        """Membership [n, means], as 0 and 1, of each example in each mean of `pooled`; None without means."""
        return None

    @abstractmethod
    def nearest(self, distances: Tensor, y: Tensor, ways: int) -> Tensor:
        """Predictions [n, outputs] by the nearest of m known examples, given the distances [n, m]."""

    @abstractmethod
    def distribution_size(self, ways: int) -> int:
        """The number of parameters of the predictive distribution of one target."""

    @abstractmethod
    def expected(self, distribution: Tensor) -> Tensor:
        """The predictions [n, outputs] given distribution parameters [n, distribution_size]."""

    def spread(self, distribution: Tensor) -> Tensor | None:
        """The standard deviations [n, outputs] given distribution parameters; None for classes.

        They have the scale on which networks learn values.
        """
        return None

    @abstractmethod
    def surprise(self, distribution: Tensor, y: Tensor) -> Tensor:
        """The mean negative log-density of targets y under distribution parameters [n, distribution_size]."""

    def guesses(self, means: Tensor) -> Tensor:
        """Predictions [n, outputs] that guess the mean of known targets, [n] in their original units.

        Raises:
            InputError: If targets of this kind have no mean.
        """
        raise InputError(f"targets of {self} have no mean")

    # What sources yield.

    def check_task(self, support_y: NDArray[Any], query_y: NDArray[Any]) -> None:
        """Check that a sampled task can be learned and judged.

        Raises:
            InputError: If the task cannot; the message says what it lacks.
        """

    def centre(self, support_y: NDArray[Any]) -> NDArray[Any] | None:
        """The offset that is subtracted from a task's targets and added to its predictions.

        Args:
            support_y: Target values of the support set [n, outputs].

        Returns:
            The offset [outputs], of the type of the targets; None if nothing is subtracted.
        """
        return None

    # What users bring and get.

    @abstractmethod
    def read(self, y: Any) -> Targets:
        """Read the targets of a support set from a list, an array, a tensor, a column or an iterator.

        Args:
            y: The targets, as users hold them.

        Raises:
            InputError: If a target cannot be read; the message names it.
        """

    def read_more(self, y: Any, classes: Sequence[Hashable]) -> Targets:
        """Read the targets of further examples of a task, any number of them, as `read` does.

        Args:
            y: The targets, as users hold them.
            classes: Classes of the task so far. They keep their places in the result, which new classes follow.

        Raises:
            InputError: If a target cannot be read, or does not go with those of the task; the message names it.
        """
        found = self.read(y)
        if found.classes != tuple(classes):
            raise InputError(f"y has the classes {list(found.classes)}, but the task has {list(classes)}")
        return found

    @abstractmethod
    def probabilities(self, output: Tensor) -> NDArray[np.float32]:
        """Class probabilities [n, classes] of predictions.

        Raises:
            InputError: If predictions are values.
        """

    @abstractmethod
    def values(self, output: Tensor, flat: bool) -> NDArray[np.float32]:
        """Predicted values [n, outputs], or [n] if `flat`.

        Raises:
            InputError: If predictions are classes.
        """

    @abstractmethod
    def predictions(
        self, output: Tensor, classes: Sequence[Hashable], flat: bool
    ) -> list[Hashable] | NDArray[np.float32]:
        """Predictions as `AdaptedTask.predict` returns them: a list of labels, or an array of values."""

    @abstractmethod
    def found_classes(self, output: Tensor) -> list[int] | None:
        """The index of the predicted class of each example; None if predictions are values."""

    @abstractmethod
    def check_classes(self, classes: Sequence[Hashable], ways: int | None, flat: bool) -> None:
        """Check that the class labels of a saved adapted task are possible for this kind.

        Raises:
            ValueError: If they are not; the message says what is wrong.
        """

    @abstractmethod
    def target_columns(self) -> tuple[Column, ...]:
        """The table columns that hold the targets of a support set; they are empty in query rows."""

    @abstractmethod
    def prediction_columns(self) -> tuple[Column, ...]:
        """The table columns that hold predictions."""

    @abstractmethod
    def from_cells(self, rows: Sequence[Sequence[Any]], names: Sequence[str], where: Callable[[int], str]) -> Any:
        """Targets for `read`, from rows of the cells of `target_columns`, which are text in a CSV file.

        Args:
            rows: Rows [n], each with one cell for each of `target_columns`.
            names: Names of these columns in the table at hand.
            where: Function that returns the name of row i for messages.

        Raises:
            InputError: If a cell holds no valid target; the message names it.
        """

    @abstractmethod
    def prediction_cells(self, output: Tensor, classes: Sequence[Hashable]) -> dict[str, Any]:
        """Predictions as the cells of `prediction_columns`: a list or an array for each column."""

    @abstractmethod
    def example_targets(self, ways: int | None, shots: int) -> list[list[Any]]:
        """Rows of cells of `target_columns` for a small made-up support set.

        Args:
            ways: Number of ways that the learner is fixed to; None if it takes any number.
            shots: Number of shots that the learner was evaluated with.
        """

    # How it is told.

    @abstractmethod
    def told(self, whole: str, shots: str) -> str:
        """A description of a learner's tasks in a few words, as in "5-way (fixed) 1-shot".

        Args:
            whole: Description of ways and shots.
            shots: Description of the shots alone.
        """

    def chance(self, guessing: float) -> float | None:
        """The expected score of uninformed guessing; None if it depends on the tasks.

        Args:
            guessing: Accuracy of guessing one of as many classes as episodes have ways.
        """
        return None

    @property
    def target_size_told(self) -> int | None:
        """The number of values of a target; None if it is a label."""
        return None if self.has_classes else self.outputs(1)

    @property
    def is_curve(self) -> bool:
        """Whether the predictions for a task with scalar inputs can be drawn as a curve."""
        return False


def _require_known(cls: type, score: object) -> None:
    """Refuse a score that results cannot hold; what depends on a kind's fields is seen when there are any."""
    if isinstance(score, Score) and SCORES.get(score.name) != score:
        raise TypeError(f"{cls.__name__}.score is {score}; take one of metaray.tasks.score.SCORES")
