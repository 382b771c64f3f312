"""The inner learning rate in its forms: one number, one a parameter pattern, or a schedule over outer steps."""

from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field, model_validator

from metaray.config import Config
from metaray.errors import InputError

Rate = Annotated[float, Field(ge=0)]


class Schedule(Config):
    """A piecewise constant inner learning rate: `values[i]` from outer step `steps[i]` on.

    Attributes:
        steps: increasing, the first is 0.
        values: as many as `steps`.
    """

    steps: tuple[int, ...]
    values: tuple[Rate, ...]

    @model_validator(mode="after")
    def _aligned(self) -> "Schedule":
        if len(self.steps) != len(self.values):
            raise ValueError(f"{len(self.steps)} steps for {len(self.values)} values")
        if not self.steps or self.steps[0] != 0 or list(self.steps) != sorted(set(self.steps)):
            raise ValueError(f"steps must start at 0 and increase, not {self.steps}")
        return self


InnerLR = Rate | dict[str, Rate] | Schedule
"""A number, a dict from parameter pattern (`head.*`) to number, or a schedule over outer steps."""


def rates(inner_lr: InnerLR, names: list[str], step: int) -> dict[str, float]:
    """The rate of each parameter at an outer step.

    The first pattern (of `fnmatch`) that fits a name decides.

    Raises:
        InputError: if no pattern fits a parameter, or a pattern fits none.
    """
    if isinstance(inner_lr, Schedule):
        value = max(zip(inner_lr.steps, inner_lr.values, strict=True), key=lambda item: (item[0] <= step, item[0]))[1]
        return dict.fromkeys(names, value)
    if not isinstance(inner_lr, dict):
        return dict.fromkeys(names, float(inner_lr))
    for pattern in inner_lr:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(f"inner_lr pattern {pattern!r} fits no parameter. Parameters: {', '.join(names)}")
    found = {}
    for name in names:
        fitting = [rate for pattern, rate in inner_lr.items() if fnmatchcase(name, pattern)]
        if not fitting:
            raise InputError(f"no inner_lr pattern fits parameter {name!r}; add one, for instance '*'")
        found[name] = fitting[0]
    return found
