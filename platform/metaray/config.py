"""The base of every frozen description (experiment, algorithm, model, source): validated, closed to unknown keys."""

import functools
import inspect
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, PlainSerializer, ValidationError, WrapSerializer, model_validator

from metaray.errors import InputError, redacted, unknown

SHOWN = 100
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Of a folder's 255 bytes the rest is for the time and random digits of a run.
LONGEST_NAME = 230

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Base class of descriptions: a frozen pydantic model that its JSON describes completely.

    Unknown keys are errors, and numbers must be finite.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_validator(mode="after")
    def _parts_are_as_declared(self) -> Self:
        """JSON says of a part what its declared type has: a subclass would come back as something else."""
        for name in type(self).model_fields:
            if _is_plain(type(self), name):  # a table of items holds millions
                continue
            for part in _parts(getattr(self, name)):
                if type(part) not in _declared(type(self), name) and not _says_its_kind(type(self), name):
                    raise ValueError(_not_as_declared(type(self), name, part))
        return self

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, where: str, context: dict[str, Any] | None = None) -> Self:
        """Validate `values` read from JSON.

        Raises:
            InputError: If a field is invalid; the message names `where` and every such field.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"{where}: must be a JSON object with the fields of {cls.__name__} (got {_short(values)})")
        try:
            return cls.model_validate(dict(values), context=context)
        except ValidationError as error:
            raise InputError(explain(error, where=where, model=cls)) from None


def replace(config: C, **changes: Any) -> C:
    """Return a copy with some fields changed, validated again, unlike pydantic's own `model_copy`.

    Example: `replace(maml_5way_1shot(), num_steps=100)`.

    Args:
        config: Description to copy, such as an experiment or a model.
        **changes: New values of fields.

    Raises:
        InputError: If a field is unknown (the message suggests the nearest name) or a value is invalid.
    """
    cls = type(config)
    kept = {name: getattr(config, name) for name in cls.model_fields}
    return cls.parse({**kept, **changes}, where=cls.__name__)


def check_name(name: str, what: str) -> str:
    """Check that `name` can be the name of a folder, of an MLflow experiment and of a registered model; returns it.

    Raises:
        InputError: If it cannot; the message says what `what` may consist of, and suggests the nearest allowed name.
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


def refuse_subclass(value: BaseModel, cls: type[BaseModel]) -> None:
    """Raise ValueError if a description that others read from JSON is not of exactly this class."""
    mine = type(value)
    if mine is not cls:
        raise ValueError(
            f"{mine.__module__}:{mine.__qualname__} is a subclass of {cls.__name__}, and what it adds would be lost: "
            f"workers, checkpoints and --set read a plain {cls.__name__} from JSON. Return {cls.__name__}(...) itself"
        )


def difference(one: Any, other: Any, path: str = "") -> str | None:
    """The dotted name of the first field in which two descriptions differ; None if they are equal."""
    if type(one) is not type(other) and any(
        isinstance(side, BaseModel | Mapping | list | tuple) for side in (one, other)
    ):
        return path
    if isinstance(one, BaseModel):
        pairs = {name: (getattr(one, name), getattr(other, name)) for name in type(one).model_fields}
    elif isinstance(one, Mapping):
        pairs = {str(key): (one.get(key), other.get(key)) for key in {**one, **other}}
        if one.keys() != other.keys():
            return path
    elif isinstance(one, list | tuple):
        pairs = {str(i): pair for i, pair in enumerate(zip(one, other, strict=False))}
        if len(one) != len(other):
            return path
    else:
        return None if one == other else path
    found = (difference(*pair, f"{path}.{name}" if path else name) for name, pair in pairs.items())
    return next((place for place in found if place is not None), None)


def explain(error: ValidationError, *, where: str, model: type[BaseModel] | None = None) -> str:
    """Explain a validation error: for each invalid field its dotted name, the value, and what would be right.

    Args:
        error: Error that validating `model` raised.
        where: Text at the start of the message.
        model: Model whose field names are suggested for an unknown key; None takes the `Config` that the error names.
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


def _parts(value: Any) -> Iterator[BaseModel]:
    """The descriptions that a field holds, alone or in a container."""
    if isinstance(value, BaseModel):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _parts(one)
    elif isinstance(value, list | tuple | Set):
        for one in value:
            yield from _parts(one)


@functools.cache
def _declared(cls: type[BaseModel], name: str) -> frozenset[type[BaseModel]]:
    """The types of descriptions that a field's annotation names."""
    found, left = set(), [cls.model_fields[name].annotation]
    while left:
        one: Any = left.pop()
        if isinstance(one, type) and issubclass(one, BaseModel) and not inspect.isabstract(one):
            found.add(one)
        left += get_args(getattr(one, "__value__", one))
    return frozenset(found)


@functools.cache
def _is_plain(cls: type[BaseModel], name: str) -> bool:
    """Whether a field is declared to hold texts and numbers alone, in tuples perhaps, and so holds no description."""
    left = [cls.model_fields[name].annotation]
    while left:
        one: Any = left.pop()
        if get_origin(one) is tuple:
            left += [part for part in get_args(one) if part is not ...]
        elif one not in (str, int, float, bool):
            return False
    return True


@functools.cache
def _says_its_kind(cls: type[BaseModel], name: str) -> bool:
    """Whether a class writes a field in a way of its own, as those that hold any of several kinds do."""
    own, metadata = cls.__pydantic_decorators__, cls.model_fields[name].metadata
    if own.model_serializers or any(isinstance(one, PlainSerializer | WrapSerializer) for one in metadata):
        return True
    return any({"*", name} & set(one.info.fields) for one in own.field_serializers.values())


def _not_as_declared(cls: type[BaseModel], name: str, part: BaseModel) -> str:
    mine, declared = type(part), _declared(cls, name)
    said = f"{name}: {mine.__module__}:{mine.__qualname__}"
    base = next((one for one in mine.__mro__ if one in declared), None)
    if base is not None:
        return (
            f"{said} is a subclass of {base.__name__}, and what it adds would be lost: workers, checkpoints and --set "
            f"read {cls.__name__} from JSON, where {name} is a plain {base.__name__}. Use {base.__name__} itself: it "
            f"has {', '.join(base.model_fields)}"
        )
    return (
        f"{said} would be lost in JSON, which workers, checkpoints and --set read: {cls.__name__} does not say how its "
        f"kind is written. Annotate {name!r} with metaray.imports.reads_kind and writes_kind, as metaray.data.UMTRA "
        "has it for its source"
    )


def _descendants(cls: type[Config]) -> Iterator[type[Config]]:
    for one in cls.__subclasses__():
        yield one
        yield from _descendants(one)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
