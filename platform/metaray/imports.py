"""Resolving import paths: from the user's own experiment freely, from an artifact only within `metaray`."""

import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError, ValidationInfo

from metaray.config import explain
from metaray.errors import InputError, redacted, unknown

T = TypeVar("T", bound=BaseModel)

TRUST_ALL = "*"


def resolve(path: str, *, trust: Iterable[str]) -> Any:
    """The object behind `package.module:Name`.

    Args:
        path: where to import it from.
        trust: top-level packages that may be imported besides `metaray`; "*" stands for all.

    Raises:
        InputError: if the path is malformed, not trusted, or leads nowhere.
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name or module_name.startswith("."):
        raise InputError(f"{path!r} is not an import path; write it as 'package.module:Name'")
    package = module_name.partition(".")[0]
    allowed = set(trust)
    if package != "metaray" and not {package, TRUST_ALL} & allowed:
        raise InputError(
            f"refusing to import {path!r}: it lies outside metaray. If you trust that code, "
            f"say so: trust=[{package!r}], or --trust {package}"
        )
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(f"cannot import {module_name!r} (for {path!r}): {error}") from error
    if not hasattr(module, name):
        raise unknown(f"name in {module_name}", name, [n for n in vars(module) if not n.startswith("_")])
    found = getattr(module, name)
    home = getattr(found, "__module__", None) or module_name
    if package == "metaray" and home.partition(".")[0] != "metaray":
        raise InputError(f"refusing {path!r}: {name} is not metaray's own, it comes from {home}")
    return found


def trust_of(info: ValidationInfo) -> tuple[str, ...]:
    """The packages that a validation may import from: everything, unless its context says otherwise."""
    context = info.context or {}
    return tuple(context.get("trust", (TRUST_ALL,)))


def parse_kind(
    value: Any, known: Mapping[str, type[T]], base: Any, *, what: str, trust: Iterable[str] = (TRUST_ALL,)
) -> T:
    """An instance of one of the `known` classes (all below `base`) from `{"kind": key, **fields}`.

    What already is an instance of `base` is passed through.

    The kind of a class from elsewhere is its import path, `package.module:Name`.

    Raises:
        InputError: for an unknown kind (with the nearest right one), or wrong fields.
    """
    if isinstance(value, base):
        return cast(T, value)
    if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
        kinds, got = ", ".join(sorted(known)), redacted(repr(value))
        raise InputError(f"{what} must be an object with a 'kind', one of {kinds} (got {got})")
    kind = value["kind"]
    cls = known.get(kind)
    if cls is None:
        if ":" not in kind:
            raise unknown(what, kind, known)
        cls = resolve(kind, trust=trust)
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise InputError(f"{kind!r} is not of type {base.__name__}")
        if inspect.isabstract(cls):
            raise InputError(f"{kind!r} does not define {', '.join(sorted(cls.__abstractmethods__))}")
    fields = {key: item for key, item in value.items() if key != "kind"}
    try:
        return cls.model_validate(fields, context={"trust": tuple(trust)})
    except ValidationError as error:
        raise InputError(explain(error, where=f"{what} {kind}", model=cls)) from None


def dump_kind(value: BaseModel, known: Mapping[str, type[Any]]) -> dict[str, Any]:
    """The inverse of `parse_kind`, in JSON types."""
    names = {cls: key for key, cls in known.items()}
    cls = type(value)
    kind = names.get(cls, f"{cls.__module__}:{cls.__qualname__}")
    return {"kind": kind, **value.model_dump(mode="json")}
