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
    """An optimiser of the outer loop, which updates the meta-parameters.

    The reduced gradient, which is the same on every rank, is clipped first; every rank then takes the same step, to the
    same bits. An optimiser of the user's own has its hyperparameters as fields, and implements `build`.

    Attributes:
        outer_lr: Peak learning rate.
        schedule: Schedule of the learning rate: "constant"; "linear" or "cosine" decay to `final_lr_fraction *
            outer_lr`, which the step after the last one would have; "step", which multiplies the rate by `decay` every
            `decay_every` steps; or an object whose `kind` is one of these or an import path, with fields of its own.
        warmup_steps: Number of outer steps of linear warm-up from zero; the step after them has the full rate.
        final_lr_fraction: Fraction of the peak rate at which "linear" and "cosine" end.
        decay: Factor by which "step" multiplies the rate.
        decay_every: Number of outer steps between two decays of "step".
        weight_decay: Strength of the weight decay: an L2 penalty or decoupled, as the optimiser defines it.
        clip_norm: Largest Euclidean norm of the outer gradient, which is clipped to it; None does not clip.
        groups: Learning rate and weight decay for some parameters, by a pattern of their names (`head.*`). If several
            patterns match a parameter, the longest one decides.
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
        """Build the torch optimiser over leaf tensors.

        Its state must consist of tensors, numbers and text, in lists, tuples and dicts.

        Args:
            groups: Parameter groups as torch's optimisers take them, each with its "params", "lr" and "weight_decay".
        """

    @property
    def whole_schedule(self) -> Schedule:
        """The schedule of all outer steps: `schedule`, preceded by the warm-up if there is one."""
        then = self.schedule
        if isinstance(then, str):
            cls = SCHEDULES[then]
            own = cls.model_fields.keys() & OuterOptimizer.model_fields.keys()
            then = cls.parse({name: getattr(self, name) for name in own}, where=f"schedule {then}")
        return LinearWarmUp(steps=self.warmup_steps, then=then) if self.warmup_steps else then

    def lr_at(self, step: int, num_steps: int, outer_lr: float | None = None) -> float:
        """The outer learning rate of a step: a pure function, so that resuming is exact.

        Args:
            step: Outer step, 0 .. num_steps-1.
            num_steps: Number of outer steps of the run.
            outer_lr: Peak learning rate, which a group may have of its own; None takes the optimiser's.

        Raises:
            InputError: If a schedule of the user's own returns no valid rate.
        """
        rate = self.whole_schedule.rate(self.outer_lr if outer_lr is None else outer_lr, step, num_steps, 0)
        if isinstance(rate, bool) or not isinstance(rate, float | int) or not 0 <= rate < math.inf:
            raise InputError(
                f"optimizer.schedule: {type(self.schedule).__qualname__} gives the rate {rate!r} at step {step}, but "
                "must give a finite number, not below 0"
            )
        return float(rate)
