"""Tasks of predicting values."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from metaray.config import replace
from metaray.errors import InputError
from metaray.tasks.cells import numbers_of
from metaray.tasks.column import Column, numbered
from metaray.tasks.score import SCORES, Score
from metaray.tasks.task_kind import Targets, TaskKind

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

JudgedBy = Literal["mse", "rmse", "mae"]
TrainedBy = Literal["mse", "mae"]
SIGMA_MIN, SIGMA_SCALE = 0.1, 0.9


class Regression(TaskKind):
    """Tasks whose targets are one or more values, which mean the same in all tasks; one task has one way.

    Predictions are the values; loss and score are the mean squared error unless another is chosen. If values are far
    from 0 or of another size than about 1, `mean` and `std` scale them: networks and losses see (value - mean) / std.
    Scores, and the values that users give and get, are in the original units (for the mean squared error: their
    square).

    If tasks differ more in their level than examples within a task do, as patients do, set `centred`: networks then
    learn differences to the mean of the task's support set, which is added to predictions. An algorithm then starts
    from the support mean and cannot overfit to the levels of a few meta-train tasks.

    Attributes:
        target_size: Number of values of a target.
        mean: Number subtracted from the values; omitted from the JSON if 0.
        std: Number by which the values are then divided; omitted from the JSON if 1.
        centred: Whether the mean of a task's support set is subtracted as well; omitted from the JSON if false.
        judged_by: Score of a task: the mean squared error ("mse"), its root ("rmse"), or the mean absolute error
            ("mae"). It decides checkpoints and promotion. Omitted from the JSON if "mse".
        trained_by: Loss: the mean squared error ("mse"), which aims at the mean of the possible values of a target, or
            the mean absolute error ("mae"), which aims at their median. Neural processes use a likelihood instead, and
            closed-form solvers always fit the support set by least squares. Omitted from the JSON if "mse".
    """

    kind: ClassVar[str] = "regression"
    baselines: ClassVar[tuple[str, ...]] = ("support_mean", "ridge")
    item_baselines: ClassVar[tuple[str, ...]] = (
        "global_mean",
        "item_mean",
        "item_mean_and_offset",
        "item_mean_and_shrunk_offset",
    )
    verb: ClassVar[str] = "predicts values"

    target_size: int = Field(default=1, ge=1, strict=True)
    mean: float = Field(default=0.0, exclude_if=lambda mean: mean == 0.0)
    std: float = Field(default=1.0, gt=0, exclude_if=lambda std: std == 1.0)
    centred: bool = Field(default=False, exclude_if=lambda centred: not centred)
    judged_by: JudgedBy = Field(default="mse", exclude_if=lambda judged_by: judged_by == "mse")
    trained_by: TrainedBy = Field(default="mse", exclude_if=lambda trained_by: trained_by == "mse")

    def __str__(self) -> str:
        return f"{self.kind} tasks of {self.target_size} value{'' if self.target_size == 1 else 's'}"

    def labels(self, ways: int) -> int:
        """Always 1, since targets are values."""
        return 1

    def outputs(self, ways: int) -> int:
        """The target size: one output for each value."""
        return self.target_size

    def check_ways(self, fewest: int, most: int) -> None:
        """Check that episodes have exactly one way."""
        if most != 1:
            raise ValueError(f"these have 1 way (got {most})")

    def loss(self, output: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        """The mean squared or mean absolute error of predicted values [n, target_size], as `trained_by` says."""
        from torch.nn import functional

        error = functional.l1_loss if self.trained_by == "mae" else functional.mse_loss
        if weights is None:
            return error(output, y.to(output.dtype))
        each = error(output, y.to(output.dtype), reduction="none").mean(dim=1)
        return (weights * each).sum() / weights.sum()

    @property
    def score(self) -> Score:
        """The score that `judged_by` names."""
        return SCORES[self.judged_by]

    def is_alike(self, other: TaskKind) -> bool:
        """Whether the other kind has values of the same number and scale."""
        if not isinstance(other, Regression):
            return False
        return replace(other, judged_by=self.judged_by, trained_by=self.trained_by) == self

    def judged(self, output: Tensor, y: Tensor) -> Tensor:
        """The error named by `judged_by`, in the original units of the values."""
        from torch.nn import functional

        if self.judged_by == "mae":
            return functional.l1_loss(output, y.to(output.dtype)) * self.std
        squared = functional.mse_loss(output, y.to(output.dtype))
        if self.judged_by == "rmse":
            return squared.sqrt() * self.std
        return squared if self.std == 1.0 else squared * self.std**2

    def guesses(self, means: Tensor) -> Tensor:
        """The means, scaled as networks learn values."""
        return ((means - self.mean) / self.std)[:, None].expand(-1, self.target_size)

    @property
    def further(self) -> tuple[Score, ...]:
        """The mean absolute error and the mean squared error, without the one that is the score."""
        return tuple(SCORES[name] for name in ("mae", "mse") if name != self.score.name)

    def judged_further(self, output: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """The errors named by `further`, in the original units of the values."""
        apart = (output - y.to(output.dtype)) * self.std
        errors = {"mae": lambda: apart.abs().mean(), "mse": lambda: apart.square().mean()}
        return tuple(errors[score.name]() for score in self.further)

    def aims(self, y: Tensor, ways: int, dtype: torch.dtype) -> Tensor:
        """The target values themselves."""
        return y.to(dtype)

    def seen(self, y: Tensor, dtype: torch.dtype) -> Tensor:
        """The target values themselves."""
        return y.to(dtype)

    def pooled(self, encoded: Tensor, y: Tensor, ways: int) -> Tensor:
        """The mean of all encoded examples."""
        return encoded.mean(dim=0)

    def pools(self, y: Tensor, ways: int, dtype: torch.dtype) -> Tensor | None:
        """A single mean over all examples: ones [n, 1]."""
        return y.new_ones(len(y), 1, dtype=dtype)

    def nearest(self, distances: Tensor, y: Tensor, ways: int) -> Tensor:
        """The target of the nearest known example."""
        return y[distances.argmin(dim=1)]

    def distribution_size(self, ways: int) -> int:
        """Two numbers for each value: the mean and the spread of a Gaussian."""
        return 2 * self.target_size

    def expected(self, distribution: Tensor) -> Tensor:
        """The means of the Gaussians."""
        return distribution.chunk(2, dim=1)[0]

    def spread(self, distribution: Tensor) -> Tensor:
        """The standard deviations sigma = 0.1 + 0.9 softplus(.) of the Gaussians, as in `surprise`."""
        return _sigma(distribution.chunk(2, dim=1)[1])

    def surprise(self, distribution: Tensor, y: Tensor) -> Tensor:
        """The negative log-density of Gaussians with sigma = 0.1 + 0.9 softplus(.), summed over the values of a target.

        Garnelo et al. ("Conditional neural processes", ICML 2018, arXiv:1807.01613, section 4.1).
        """
        mean, raw = distribution.chunk(2, dim=1)
        sigma = _sigma(raw)
        surprise = ((y.to(mean.dtype) - mean) / sigma).square() / 2 + sigma.log() + math.log(2 * math.pi) / 2
        return surprise.sum(dim=1).mean()

    def check_task(self, support_y: NDArray[Any], query_y: NDArray[Any]) -> None:
        """Check that support and query targets have the shape [n, target_size].

        Targets [n] would broadcast against predictions [n, 1], and compare each with all others.
        """
        for side, y in (("support", support_y), ("query", query_y)):
            if y.ndim != 2 or y.shape[1] != self.target_size or y.dtype.kind != "f":
                raise InputError(
                    f"the {side} targets of a regression task are {y.dtype} of shape {list(y.shape)}; it needs "
                    f"floating-point numbers [n, {self.target_size}]"
                )

    def centre(self, support_y: NDArray[Any]) -> NDArray[Any] | None:
        """The mean of the support targets if `centred`, otherwise None.

        It is rounded once, so that it is the same on all machines.
        """
        if not self.centred:
            return None
        import numpy as np

        means = [math.fsum(column) / len(column) for column in support_y.T.tolist()]
        return np.array(means, dtype=support_y.dtype)

    def read(self, y: Any) -> Targets:
        """Read finite numbers [n, target_size], or [n] if a target is one number."""
        import torch

        from metaray.containers import opened_whole
        from metaray.numbers import is_flat, numbers

        given = opened_whole(y, "y")
        values = numbers(given, (self.target_size,), "y")
        if (self.mean, self.std) != (0.0, 1.0):
            values = ((values.astype("float64") - self.mean) / self.std).astype("float32")
        return Targets(torch.from_numpy(values), flat=is_flat(given))

    def probabilities(self, output: Tensor) -> NDArray[np.float32]:
        """Not available: predictions are values."""
        raise InputError("this learner predicts values: use predict or predict_values, not predict_proba")

    def values(self, output: Tensor, flat: bool) -> NDArray[np.float32]:
        """The predicted values [n, target_size], or [n] if `flat`."""
        found: NDArray[np.float32] = output.numpy()
        if (self.mean, self.std) != (0.0, 1.0):
            found = (found.astype("float64") * self.std + self.mean).astype("float32")
        return found[:, 0] if flat else found

    def predictions(
        self, output: Tensor, classes: Sequence[Hashable], flat: bool
    ) -> list[Hashable] | NDArray[np.float32]:
        """The predicted values, as `values` returns them."""
        return self.values(output, flat)

    def found_classes(self, output: Tensor) -> list[int] | None:
        """Always None: predictions are values."""
        return None

    def check_classes(self, classes: Sequence[Hashable], ways: int | None, flat: bool) -> None:
        """Check that a saved task has no class labels."""
        if classes:
            raise ValueError(f"{len(classes)} labels do not fit its learner")
        if flat and self.target_size != 1:
            raise ValueError("its labels or targets do not fit its learner")

    def target_columns(self) -> tuple[Column, ...]:
        """The columns of the targets: y, or y0, y1, ... if a target has several values."""
        return tuple(Column(name, "double", required=False) for name in numbered("y", self.target_size))

    def prediction_columns(self) -> tuple[Column, ...]:
        """The columns of the predictions: y, or y0, y1, ... if a target has several values."""
        return tuple(Column(name, "double") for name in numbered("y", self.target_size))

    def from_cells(self, rows: Sequence[Sequence[Any]], names: Sequence[str], where: Callable[[int], str]) -> Any:
        """The target values [n, target_size] of a table's rows."""
        return numbers_of(rows, names, where)

    def prediction_cells(self, output: Tensor, classes: Sequence[Hashable]) -> dict[str, Any]:
        """The predicted values, by column name."""
        columns = self.values(output, False).astype("float64").T
        return dict(zip(numbered("y", self.target_size), columns, strict=True))

    def example_targets(self, ways: int | None, shots: int) -> list[list[Any]]:
        """The target cells of a small made-up support set: zeros."""
        return [[0.0] * self.target_size for _ in range(shots)]

    def told(self, whole: str, shots: str) -> str:
        """The task in words, as in "10-shot regression of 1 value"."""
        return f"{shots} regression of {self.target_size} value{'' if self.target_size == 1 else 's'}"

    @property
    def is_curve(self) -> bool:
        """Whether a target is a single value."""
        return self.target_size == 1


def _sigma(raw: Tensor) -> Tensor:
    """Standard deviations from what a network says of them."""
    from torch.nn import functional

    return SIGMA_MIN + SIGMA_SCALE * functional.softplus(raw)
