"""Schedules of the outer learning rate. `SCHEDULES` is the explicit dict of them."""

import math
from abc import abstractmethod
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from metaray.config import Config
from metaray.imports import reads_kind, writes_kind


class Schedule(Config):
    """A schedule of the outer learning rate over the steps of a run."""

    kind: ClassVar[str]

    @abstractmethod
    def rate(self, outer_lr: float, step: int, num_steps: int, first: int) -> float:
        """The learning rate of an outer step: a pure function, so that resuming is exact.

        Args:
            outer_lr: Peak learning rate.
            step: Outer step, 0 .. num_steps-1.
            num_steps: Number of outer steps of the run.
            first: First step after the warm-up, which has the full rate; at most `step`.
        """


class Constant(Schedule):
    """A constant learning rate."""

    kind: ClassVar[str] = "constant"

    def rate(self, outer_lr: float, step: int, num_steps: int, first: int) -> float:
        """See `Schedule.rate`."""
        return outer_lr


class Linear(Schedule):
    """Linear decay to `final_lr_fraction * outer_lr`, which a step after the last one would have.

    Attributes:
        final_lr_fraction: Fraction of the peak rate at which the decay ends.
    """

    kind: ClassVar[str] = "linear"
    final_lr_fraction: float = Field(default=0.0, ge=0, le=1)

    def rate(self, outer_lr: float, step: int, num_steps: int, first: int) -> float:
        """See `Schedule.rate`."""
        floor = self.final_lr_fraction
        return outer_lr * (floor + (1 - floor) * (1 - _progress(step, num_steps, first)))


class Cosine(Schedule):
    """Cosine decay (Loshchilov and Hutter 2017) to `final_lr_fraction * outer_lr`, the rate after the last step.

    Attributes:
        final_lr_fraction: Fraction of the peak rate at which the decay ends.
    """

    kind: ClassVar[str] = "cosine"
    final_lr_fraction: float = Field(default=0.0, ge=0, le=1)

    def rate(self, outer_lr: float, step: int, num_steps: int, first: int) -> float:
        """See `Schedule.rate`."""
        floor, progress = self.final_lr_fraction, _progress(step, num_steps, first)
        return outer_lr * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


class Step(Schedule):
    """Step decay: the rate is multiplied by `decay` every `decay_every` outer steps, warm-up included.

    Attributes:
        decay: Factor of each decay.
        decay_every: Number of outer steps between two decays.
    """

    kind: ClassVar[str] = "step"
    decay: float = Field(default=0.5, gt=0, le=1)
    decay_every: int = Field(default=2000, gt=0)

    def rate(self, outer_lr: float, step: int, num_steps: int, first: int) -> float:
        """See `Schedule.rate`."""
        return float(outer_lr * self.decay ** (step // self.decay_every))


class Piecewise(Schedule):
    """Piecewise constant rate: the peak rate times one factor after another, each from a share of the run on.

    Before the first share the factor is 1. MetaOptNet has 0.06 from a third of the run on, 0.012 from two thirds,
    0.0024 from five sixths.

    Attributes:
        starts: Shares of the steps after the warm-up at which the factors begin, ascending.
        factors: Factors on the peak learning rate, one for each start.
    """

    kind: ClassVar[str] = "piecewise"
    starts: tuple[Annotated[float, Field(ge=0, le=1)], ...] = (1 / 3, 2 / 3, 5 / 6)
    factors: tuple[Annotated[float, Field(ge=0)], ...] = (0.06, 0.012, 0.0024)

    @model_validator(mode="after")
    def _a_factor_each(self) -> Self:
        if len(self.starts) != len(self.factors) or list(self.starts) != sorted(set(self.starts)):
            raise ValueError(
                f"piecewise has {len(self.starts)} starts {list(self.starts)} and {len(self.factors)} factors: give as "
                "many, and let the starts rise"
            )
        return self

    def rate(self, outer_lr: float, step: int, num_steps: int, first: int) -> float:
        """See `Schedule.rate`."""
        progress = _progress(step, num_steps, first)
        begun = [factor for start, factor in zip(self.starts, self.factors, strict=True) if progress >= start]
        return outer_lr * (begun[-1] if begun else 1.0)


AFTER_WARM_UP: dict[str, type[Schedule]] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "step": Step,
    "piecewise": Piecewise,
}


class LinearWarmUp(Schedule):
    """A linear warm-up from zero, followed by another schedule.

    Attributes:
        steps: Number of outer steps of the warm-up; the step after them has the full rate.
        then: Schedule after the warm-up.
    """

    kind: ClassVar[str] = "linear_warm_up"
    steps: int = Field(ge=0)
    then: Annotated[
        Schedule, reads_kind(AFTER_WARM_UP, Schedule, what="schedule after the warm-up"), writes_kind(AFTER_WARM_UP)
    ] = Constant()

    def rate(self, outer_lr: float, step: int, num_steps: int, first: int) -> float:
        """See `Schedule.rate`."""
        if step - first < self.steps:
            return outer_lr * (step - first + 1) / self.steps
        return self.then.rate(outer_lr, step, num_steps, first + self.steps)


SCHEDULES: dict[str, type[Schedule]] = {**AFTER_WARM_UP, "linear_warm_up": LinearWarmUp}


def _progress(step: int, num_steps: int, first: int) -> float:
    """How far a run is: 0 at the step `first`, 1 after the last."""
    return min(1.0, (step - first) / max(1, num_steps - first))
