"""Resolving import paths: from the user's own experiment freely, from an artifact only within `metaray`."""

import importlib
import inspect
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, PlainSerializer, SerializationInfo, ValidationError, ValidationInfo

from metaray.config import explain
from metaray.errors import InputError, redacted, unknown
from metaray.tracebacks import user_frames
from metaray.trust import TRUST_ALL as TRUST_ALL
from metaray.trust import code_sha256, remember_code, require_trusted
from metaray.users_code import lines_of

T = TypeVar("T", bound=BaseModel)

EVERY_FIELD = {"every_field": True}
"""Serialisation context that includes all fields of a description; see `writes_kind`."""
FOLDERS = "METARAY_IMPORT_FOLDERS"
"""Environment variable that tells workers the folders of the user's own modules on the driver."""
OWN_KINDS = ("custom", "module")
"""Kinds whose `path` is an import path."""
IMPORTED = re.compile(r"[^\s:/\\]+:[^\s:/\\]+")
"""Regular expression that import paths, `module:Name`, match."""
_folders: list[str] = []
NOT_IMPORTABLE: dict[str, str] = {}
"""Modules that no other process can import by name, with the reason: recipe files with unsuitable names."""


def import_from(*folders: Path) -> None:
    """Let modules of the user's own be imported from folders, after all other places.

    They hide no module of Python or of a package.
    """
    for folder in folders:
        if (text := str(folder.absolute())) not in sys.path:
            sys.path.append(text)
            _folders.append(text)


def import_folders() -> list[str]:
    """The folders that `import_from` has added and that still exist."""
    return [folder for folder in _folders if folder in sys.path]


def where_found(tree: Any) -> str:
    """Prefix for a command that reads a description again, so that it finds the modules which the description names.

    A recipe's own folder is found by way of the recipe; JSON in another folder needs this prefix.

    Args:
        tree: The description, in JSON types.
    """
    folders = dict.fromkeys(folder for name in _modules_of(tree) if (folder := _folder_of(name)) is not None)
    return f"PYTHONPATH={shlex.quote(os.pathsep.join(folders))} " if folders else ""


def _modules_of(tree: Any) -> Iterator[str]:
    """The top-level modules of the import paths in a description."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            if key in ("kind", "path") and isinstance(value, str) and ":" in value:
                yield value.partition(":")[0].partition(".")[0]
            yield from _modules_of(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _modules_of(value)


def paths_in(tree: Any) -> list[str]:
    """The import paths in a description in JSON types: unknown kinds, and fields that call code by its path."""
    found: list[str] = []
    if isinstance(tree, Mapping):
        kind, path = tree.get("kind"), tree.get("path")
        named = [kind, path if kind in OWN_KINDS else None]
        found += [name for name in named if isinstance(name, str) and ":" in name]
        if isinstance(kind, str) and ":" in kind and isinstance(path, str) and IMPORTED.fullmatch(path):
            found.append(path)
        for value in tree.values():
            found += paths_in(value)
    elif isinstance(tree, list):
        for value in tree:
            found += paths_in(value)
    return found


def _folder_of(module: str) -> str | None:
    """The folder that a module was found in, if that is neither the working directory nor one of Python's."""
    found = sys.modules.get(module)
    place = next(iter(getattr(found, "__path__", ())), None) or getattr(found, "__file__", None)
    folder = None if place is None else Path(place).parent
    if folder is None or folder == Path.cwd() or str(folder) not in import_folders():
        return None
    return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)


def resolve(path: str, *, trust: Iterable[str]) -> Any:
    """Import the object named `package.module:Name`.

    Args:
        path: Import path of the object.
        trust: Top-level packages besides metaray that may be imported, see `metaray.trust`; "*" stands for all.

    Raises:
        InputError: If the path is malformed, not trusted (`Untrusted`), or names nothing.
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name or module_name.startswith("."):
        raise InputError(f"{path!r} is not an import path; write it as 'package.module:Name'")
    package = module_name.partition(".")[0]
    require_trusted(path, trust)
    if module_name in NOT_IMPORTABLE:
        raise InputError(
            f"{path!r}: of the import paths that workers and learners follow, {NOT_IMPORTABLE[module_name]}"
        )
    code = None if package == "metaray" else code_sha256(package)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        if not isinstance(error, ImportError) or user_frames(error):
            raise InputError(f"cannot import {module_name!r} (for {path!r}):\n{lines_of(error)}") from error
        here = f"; modules are looked for in the working directory {Path.cwd()}, a recipe's folder and PYTHONPATH"
        raise InputError(f"cannot import {module_name!r} (for {path!r}): {error}{here}") from error
    remember_code(package, code)
    if not hasattr(module, name):
        raise unknown(f"name in {module_name}", name, [n for n in vars(module) if not n.startswith("_")])
    found = getattr(module, name)
    home = getattr(found, "__module__", None) or module_name
    if package == "metaray" and home.partition(".")[0] != "metaray":
        raise InputError(f"refusing {path!r}: {name} is not metaray's own, it comes from {home}")
    return found


def trust_of(info: ValidationInfo) -> tuple[str, ...]:
    """The packages that a validation may import from: all packages, unless its context restricts them."""
    context = info.context or {}
    return tuple(context.get("trust", (TRUST_ALL,)))


def parse_kind(
    value: Any, known: Mapping[str, type[T]], base: Any, *, what: str, trust: Iterable[str] = (TRUST_ALL,)
) -> T:
    """An instance of one of the `known` classes (all below `base`) from `{"kind": key, **fields}`.

    An instance of `base` is returned as it is, if its class can be found by its import path. The kind of a class
    outside metaray is its import path, `package.module:Name`.

    The kind of a class from elsewhere is its import path, `package.module:Name`.

    Raises:
        InputError: If the kind is unknown (the message suggests the nearest one), or fields are invalid.
    """
    if isinstance(value, base):
        if type(value) not in known.values():
            require_findable(type(value), what=what)
            _require_kind(type(value), type(value).__qualname__)
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
        _require_kind(cls, kind)
    fields = {key: item for key, item in value.items() if key != "kind"}
    try:
        return cls.model_validate(fields, context={"trust": tuple(trust)})
    except ValidationError as error:
        raise InputError(explain(error, where=f"{what} {kind}", model=cls)) from None


def require_findable(cls: type[Any], *, what: str) -> None:
    """Check that a class can be found by its import path, by which JSON, workers and the registry know it.

    Raises:
        InputError: If it cannot; the message has the reason, and what would be right.
    """
    module, name = cls.__module__, cls.__qualname__
    said = f"{what} {name!r} is found by its import path, by workers, JSON and the registry, but"
    if "." in name:
        inside = "a function" if "<locals>" in name else "another class"
        raise InputError(f"{said} it is defined inside {inside}: move it to the top level of a module")
    if module in NOT_IMPORTABLE:
        raise InputError(f"{said} {NOT_IMPORTABLE[module]}")
    found = getattr(sys.modules.get(module), name, None)
    # By its name: a module that was loaded again has another class, of the same text.
    if not isinstance(found, type) or (found.__module__, found.__qualname__) != (module, name):
        raise InputError(f"{said} {module}:{name} is another thing, or nothing: give it the name it is defined under")


def _require_kind(cls: type[Any], name: str) -> None:
    """Check that it has a kind, by which results and the registry call it."""
    if not isinstance(getattr(cls, "kind", None), str):
        short = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        raise InputError(f"{name!r} does not say its kind, a short name: write `kind: ClassVar[str] = {short!r}` in it")


def dump_kind(value: BaseModel, known: Mapping[str, type[Any]], *, every_field: bool = True) -> dict[str, Any]:
    """Convert an instance to JSON types: the inverse of `parse_kind`.

    Args:
        value: The instance.
        known: Known classes by their kind, as `parse_kind` takes them.
        every_field: Whether to include fields that the class lists in `left_out_of_json` and that have their defaults.
    """
    names = {cls: key for key, cls in known.items()}
    cls = type(value)
    kind = names.get(cls, f"{cls.__module__}:{cls.__qualname__}")
    tree = value.model_dump(mode="json", context=EVERY_FIELD if every_field else None)
    later = () if every_field else getattr(cls, "left_out_of_json", ())
    unsaid = {
        name for name in later if getattr(value, name) == cls.model_fields[name].get_default(call_default_factory=True)
    }
    return {"kind": kind, **{name: item for name, item in tree.items() if name not in unsaid}}


def reads_kind(known: Mapping[str, type[T]], base: Any, *, what: str, by_name: bool = False) -> BeforeValidator:
    """Pydantic validator of a field that holds an instance by its kind; use it together with `writes_kind`.

    Example: `model: Annotated[Model, reads_kind(MODELS, Model, what="model"), writes_kind(MODELS)]`.

    Args:
        known: Known classes by their kind, as `parse_kind` takes them.
        base: Base class of all these classes.
        what: Word for such an instance in messages.
        by_name: Whether a bare text is allowed: a known kind stays text, an import path becomes an instance with
            defaults.
    """

    def read(value: Any, info: ValidationInfo) -> T | str:
        if by_name and isinstance(value, str):
            if value in known:
                return value
            value = {"kind": value}
        return parse_kind(value, known, base, what=what, trust=trust_of(info))

    return BeforeValidator(read)


def writes_kind(known: Mapping[str, type[Any]]) -> PlainSerializer:
    """Pydantic serializer of a field that holds an instance by its kind; see `reads_kind`.

    Fields that a class lists in `left_out_of_json` are omitted at their defaults, so that JSON stays as it was before
    such a field existed; `model_dump(context=EVERY_FIELD)` includes them.
    """

    def write(value: BaseModel | str, info: SerializationInfo) -> dict[str, Any] | str:
        if isinstance(value, str):
            return value
        return dump_kind(value, known, every_field=info.context == EVERY_FIELD)

    return PlainSerializer(write)
