"""The inner learning rate in its forms: one number, one a parameter pattern, or a schedule over outer steps."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

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


def _form(value: Any) -> str:
    """Which form is meant, so that a wrong value is told what is wrong with that form alone."""
    if isinstance(value, Schedule) or (isinstance(value, Mapping) and {"steps", "values"} & value.keys()):
        return "(schedule)"
    return "(patterns)" if isinstance(value, Mapping) else "(number)"


InnerLR = Annotated[
    Annotated[Rate, Tag("(number)")]
    | Annotated[dict[str, Rate], Tag("(patterns)")]
    | Annotated[Schedule, Tag("(schedule)")],
    Discriminator(_form),
]
"""A number, a dict from parameter pattern (`head.*`) to number, or a schedule over outer steps."""


def rates(inner_lr: InnerLR, names: list[str], step: int) -> dict[str, float]:
    """The rate of each parameter at an outer step.

    Of the patterns (of `fnmatch`) that fit a name, the longest decides: JSON does not keep their order.

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
        fitting = [pattern for pattern in inner_lr if fnmatchcase(name, pattern)]
        if not fitting:
            raise InputError(f"no inner_lr pattern fits parameter {name!r}; add one, for instance '*'")
        found[name] = inner_lr[max(fitting, key=lambda pattern: (len(pattern), pattern))]
    return found
