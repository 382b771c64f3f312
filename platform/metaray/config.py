"""The base of every frozen description (experiment, algorithm, model, source): validated, closed to unknown keys."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from metaray.errors import InputError, unknown


class Config(BaseModel):
    """A frozen pydantic model. Unknown keys are errors; numbers must be finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, where: str, context: dict[str, Any] | None = None) -> Self:
        """Validate `values` read from JSON.

        Raises:
            InputError: naming `where` and every field that is wrong.
        """
        try:
            return cls.model_validate(dict(values), context=context)
        except ValidationError as error:
            raise InputError(explain(error, where=where, known=cls.model_fields)) from None


def explain(error: ValidationError, *, where: str, known: Mapping[str, Any] | None = None) -> str:
    """One line a wrong field: its dotted name, what is wrong, the offending value."""
    lines = []
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            names = known or {}
            lines.append(str(unknown("key", path, names)) if len(item["loc"]) == 1 else f"unknown key {path!r}.")
        else:
            message = item["msg"].removeprefix("Value error, ")
            got = repr(item["input"])
            shown = f" (got {got})" if len(got) <= 100 else ""
            lines.append(f"{path}: {message}{shown}" if path else f"{message}{shown}")
    return f"{where}: " + "; ".join(lines)
