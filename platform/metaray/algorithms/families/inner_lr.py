"""The inner learning rate in its forms: a number, one a parameter pattern, a schedule over outer steps, one a step."""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from metaray.config import Config
from metaray.errors import InputError

Rate = Annotated[float, Field(ge=0)]

BY_STEP = "(by step)"


class Schedule(Config):
    """A piecewise constant inner learning rate: `values[i]` from outer step `steps[i]` on.

    Attributes:
        steps: Increasing, the first is 0.
        values: Rates, as many as `steps`.
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
    if isinstance(value, list | tuple):
        return BY_STEP
    if isinstance(value, Schedule) or (isinstance(value, Mapping) and Schedule.model_fields.keys() & value.keys()):
        return "(schedule)"
    return "(patterns)" if isinstance(value, Mapping) else "(number)"


def _form_or_by_step(value: Any) -> str:
    return BY_STEP if _form(value) == BY_STEP else "(shared)"


InnerLR = Annotated[
    Annotated[Rate, Tag("(number)")]
    | Annotated[dict[str, Rate], Tag("(patterns)")]
    | Annotated[Schedule, Tag("(schedule)")],
    Discriminator(
        _form,
        custom_error_type="by_step",
        custom_error_message="one rate per inner step is MAML++'s (mamlpp); give a number, an object from parameter "
        "pattern to number, or a schedule over outer steps",
    ),
]
"""A number, a dict from parameter pattern (`head.*`) to number, or a schedule over outer steps."""

InnerLRByStep = Annotated[
    Annotated[InnerLR, Tag("(shared)")] | Annotated[tuple[Rate, ...], Tag(BY_STEP)], Discriminator(_form_or_by_step)
]
"""An `InnerLR`, or one number for each inner step, for algorithms with separate rates by step."""


def rates(inner_lr: InnerLR, names: list[str], step: int) -> dict[str, float]:
    """The rate of each parameter at an outer step.

    Of the patterns (of `fnmatch`) that fit a name, the longest decides: JSON does not keep their order.

    Raises:
        InputError: If no pattern fits a parameter, or a pattern fits none.
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


def rates_by_step(inner_lr: InnerLRByStep, names: list[str], inner_steps: int) -> dict[str, list[float]]:
    """Inner learning rates of each parameter, one for each inner step; of a schedule, those of outer step 0.

    Raises:
        InputError: If no pattern matches a parameter, or a pattern matches no parameter.
    """
    if isinstance(inner_lr, tuple):
        return {name: list(inner_lr) for name in names}
    return {name: [rate] * inner_steps for name, rate in rates(inner_lr, names, 0).items()}


def with_part(inner_lr: Any, part: str, value: Any) -> Any:
    """An inner learning rate, in JSON types, with one part changed; the caller validates the result.

    Example:
        >>> with_part(0.1, "head.*", 0.01)
        {'*': 0.1, 'head.*': 0.01}

    Args:
        inner_lr: The rate, which is not modified; a number counts as that of all parameters without a more specific
            pattern; None for no rate yet.
        part: Part to change: the number of a step for rates by step; "steps" or "values" of a schedule; otherwise a
            parameter pattern. "steps" or "values" begin a schedule if there is none.
        value: New value of the part.

    Raises:
        InputError: If the rate has another form.
    """
    form = _form(inner_lr)
    if form == BY_STEP:
        if not re.fullmatch("[0-9]{1,9}", part) or int(part) >= len(inner_lr):
            raise InputError(f"inner_lr is one rate per inner step, 0 to {len(inner_lr) - 1}: {part!r} is none of them")
        return [value if number == int(part) else rate for number, rate in enumerate(inner_lr)]
    if part in Schedule.model_fields:
        return {**(inner_lr if form == "(schedule)" else {}), part: value}
    if form == "(schedule)":
        raise InputError(f"inner_lr is a schedule, of steps and values: it takes no parameter pattern {part!r}")
    if form == "(patterns)":
        return {**inner_lr, part: value}
    return {part: value} if inner_lr is None else {"*": inner_lr, part: value}
