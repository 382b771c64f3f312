"""The base of every frozen description (experiment, algorithm, model, source): validated, closed to unknown keys."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from metaray.errors import InputError, redacted, unknown

SHOWN = 100
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Of a folder's 255 bytes the rest is for the time and random digits of a run.
LONGEST_NAME = 230

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """A frozen pydantic model. Unknown keys are errors; numbers must be finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, where: str, context: dict[str, Any] | None = None) -> Self:
        """Validate `values` read from JSON.

        Raises:
            InputError: naming `where` and every field that is wrong.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"{where}: must be a JSON object with the fields of {cls.__name__} (got {_short(values)})")
        try:
            return cls.model_validate(dict(values), context=context)
        except ValidationError as error:
            raise InputError(explain(error, where=where, model=cls)) from None


def replace(config: C, **changes: Any) -> C:
    """A copy with some fields changed, validated again (pydantic's own `model_copy` validates nothing).

    Example: `replace(maml_5way_1shot(), num_steps=100)`.

    Raises:
        InputError: for an unknown field, with the nearest right one, or a wrong value.
    """
    cls = type(config)
    kept = {name: getattr(config, name) for name in cls.model_fields}
    return cls.parse({**kept, **changes}, where=cls.__name__)


def check_name(name: str, what: str) -> str:
    """`name`, if it can be the name of a folder, an MLflow experiment and a registered model.

    Raises:
        InputError: saying of `what` which characters are allowed, with the nearest allowed name.
    """
    if NAME.fullmatch(name) and len(name) <= LONGEST_NAME:
        return name
    letters = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    near = re.sub(r"[^A-Za-z0-9._-]+", "-", letters).lstrip("._-")[:LONGEST_NAME].rstrip("-")
    hint = f"; for instance {near!r}" if near else ""
    raise InputError(
        f"{what} {_short(name)}: use letters, digits, '.', '_' and '-', without accents, first a letter or digit, "
        f"at most {LONGEST_NAME} of them{hint}"
    )


def explain(error: ValidationError, *, where: str, model: type[BaseModel] | None = None) -> str:
    """What is wrong with each wrong field: its dotted name, the offending value, what would be right.

    Args:
        error: from validating `model`.
        where: put first.
        model: to find the nearest right name of an unknown key; None looks for the `Config` that the error names.
    """
    if model is None:
        model = next((cls for cls in _descendants(Config) if cls.__name__ == error.title), None)
    problems = "; ".join(_explain_one(item, model).removesuffix(".") for item in error.errors(include_url=False))
    return redacted(f"{where}: {problems}")


def _explain_one(item: Mapping[str, Any], model: type[BaseModel] | None) -> str:
    # Parts in brackets tell which member of a union was tried; users never wrote them.
    loc = [str(part) for part in item["loc"] if not str(part).startswith("(")]
    path = ".".join(loc)
    prefix = f"{path}: " if path else ""
    if item["type"] == "extra_forbidden":
        inner = _model_at(model, loc[:-1])
        names = inner.model_fields if inner is not None else {}
        return str(unknown("key", path, [".".join([*loc[:-1], name]) for name in names]))
    if item["type"] == "literal_error" and isinstance(item["input"], str):
        return prefix + str(unknown("value", item["input"], re.findall("'([^']*)'", item["ctx"]["expected"])))
    if item["type"] == "missing":
        return f"{path} is missing"
    message = item["msg"].removeprefix("Value error, ")
    # Our own messages repeat the offending value themselves.
    return prefix + message if item["type"] == "value_error" else f"{prefix}{message} (got {_short(item['input'])})"


def _model_at(model: type[BaseModel] | None, loc: Sequence[str]) -> type[BaseModel] | None:
    """The description that the fields `loc` lead to from `model`; None if they lead elsewhere."""
    for name in loc:
        found = model.model_fields.get(name) if model is not None else None
        annotation = found.annotation if found is not None else None
        candidates = (annotation, *get_args(annotation))
        model = next((one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), None)
    return model


def _descendants(cls: type[Config]) -> Iterator[type[Config]]:
    for one in cls.__subclasses__():
        yield one
        yield from _descendants(one)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
