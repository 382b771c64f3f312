"""The interface of every outer optimiser, and what all of them have: a rate, its schedule, clipping, groups."""

import math
from abc import abstractmethod
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, model_validator

from metaray.config import Config
from metaray.errors import InputError
from metaray.imports import reads_kind, writes_kind
from metaray.optimizers.groups import Group
from metaray.optimizers.schedules import SCHEDULES, LinearWarmUp, Schedule

Beta = Annotated[float, Field(ge=0, lt=1)]


class OuterOptimizer(Config):
    """How the outer loop steps the meta-parameters.

    The reduced gradient, the same on every rank, is clipped first; then every rank steps by itself, to the same bits.
    One of your own has its hyperparameters as fields, and a `build`.

    Attributes:
        outer_lr: Learning rate at its highest.
        schedule: Course of the learning rate: "constant"; "linear" or "cosine" to `final_lr_fraction * outer_lr`, which
            a step after the last would have; "step" multiplies by `decay` every `decay_every` steps; or an object with
            a `kind`, one of these or an import path, and fields of its own.
        warmup_steps: Number of outer steps of linear warm-up from zero; the step after them has the full rate.
        final_lr_fraction: Where "linear" and "cosine" end.
        decay: Factor of "step".
        decay_every: Period of "step", in outer steps.
        weight_decay: Strength of the weight decay, as the optimiser has it: an L2 penalty, or decoupled.
        clip_norm: The outer gradient's Euclidean norm is clipped to this; None leaves it alone.
        groups: A rate and a weight decay of their own for some parameters, by a pattern of their names (`head.*`); of
            the patterns that fit a parameter the longest decides.
    """

    kind: ClassVar[str]
    left_out_of_json: ClassVar[tuple[str, ...]] = ("groups",)

    outer_lr: float = Field(default=1e-3, gt=0)
    schedule: Annotated[
        str | Schedule, reads_kind(SCHEDULES, Schedule, what="schedule", by_name=True), writes_kind(SCHEDULES)
    ] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    final_lr_fraction: float = Field(default=0.0, ge=0, le=1)
    decay: float = Field(default=0.5, gt=0, le=1)
    decay_every: int = Field(default=2000, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float | None = Field(default=None, gt=0)
    groups: dict[str, Group] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _schedule_is_whole(self) -> Self:
        self.whole_schedule  # noqa: B018 - one that needs fields of its own says so
        return self

    @abstractmethod
    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """A torch optimiser over leaves, whose state is tensors, numbers and text, in lists, tuples and dicts.

        Args:
            groups: Groups of parameters, as torch's optimisers take them: each with its "params", "lr" and
                "weight_decay".
        """

    @property
    def whole_schedule(self) -> Schedule:
        """The schedule of all steps: `schedule`, after the warm-up where there is one."""
        then = self.schedule
        if isinstance(then, str):
            cls = SCHEDULES[then]
            own = cls.model_fields.keys() & OuterOptimizer.model_fields.keys()
            then = cls.parse({name: getattr(self, name) for name in own}, where=f"schedule {then}")
        return LinearWarmUp(steps=self.warmup_steps, then=then) if self.warmup_steps else then

    def lr_at(self, step: int, num_steps: int, outer_lr: float | None = None) -> float:
        """The outer learning rate of step `step` (0 .. num_steps-1): a pure function, so resuming is exact.

        Args:
            step: Outer step, 0 .. num_steps-1.
            num_steps: Number of outer steps of the run.
            outer_lr: Learning rate at its highest; None takes the optimiser's own, a group may have another.

        Raises:
            InputError: If a schedule of the user's own gives no rate.
        """
        rate = self.whole_schedule.rate(self.outer_lr if outer_lr is None else outer_lr, step, num_steps, 0)
        if isinstance(rate, bool) or not isinstance(rate, float | int) or not 0 <= rate < math.inf:
            raise InputError(
                f"optimizer.schedule: {type(self.schedule).__qualname__} gives the rate {rate!r} at step {step}, but "
                "must give a finite number, not below 0"
            )
        return float(rate)
