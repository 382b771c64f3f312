"""Recipes: plain Python functions that return an `Experiment`, named `path/to/file.py:function`."""

import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable
from difflib import get_close_matches
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from pydantic import ValidationError

from metaray.config import explain
from metaray.errors import InputError, unknown
from metaray.experiment.experiment import Experiment
from metaray.imports import NOT_IMPORTABLE, import_from
from metaray.tracebacks import shown, user_frames
from metaray.users_code import defined_at, lines_of, users_code


def load_recipe(recipe: str) -> Experiment:
    """Load an experiment: call the function that `recipe` names, or read a JSON file.

    Args:
        recipe: `path/to/file.py:function`, or `path/to/experiment.json`.

    Raises:
        InputError: If the file or the function does not exist (the message lists those there are), or the function does
            not return a valid experiment.
    """
    found, place = call_recipe(recipe)
    if not isinstance(found, Experiment):
        hint = "; `metaray tune` takes it" if type(found).__name__ == "Search" else ""
        raise InputError(f"recipe {recipe!r} returned {type(found).__name__}, not an Experiment{hint}{place}")
    found.require_faithful()
    return found


def call_recipe(recipe: str) -> tuple[object, str]:
    """Call the function that `recipe` names, or read the experiment of a JSON file.

    Returns:
        The return value of the function and, in brackets for messages, where the function is defined.

    Raises:
        InputError: If the file or the function does not exist (the message lists those there are), or raises an error,
            or describes something with invalid values.
    """
    if recipe.endswith(".json"):
        path = _existing(recipe, recipe)
        import_from(path.parent, Path.cwd())  # as recipes do
        return Experiment.from_json(_read(path), where=recipe), ""
    text, colon, name = (recipe, "", "") if recipe.endswith(".py") else recipe.rpartition(":")
    if not text.endswith(".py"):
        raise InputError(f"recipe {recipe!r}: write it as path/to/file.py:function, for instance jobs/glyphs.py:demo")
    module = _load(_existing(text, recipe))
    if not colon:
        listed = ", ".join(sorted(_recipes(module))) or "none"
        raise InputError(f"recipe {recipe!r}: write it as path/to/file.py:function, the functions in it are: {listed}")
    function = _function(module, text, name)
    try:
        with users_code(f"recipe {recipe!r} raised an error"):
            return function(), f" ({defined_at(function)})"
    except InputError as error:
        wrong = error.__cause__
        if not isinstance(wrong, ValidationError):
            raise
        # Descriptions that a recipe constructs are the user's input, as those read from JSON are.
        raise InputError(explain(wrong, where=f"recipe {recipe!r}: {wrong.title}") + _place(wrong)) from None


def _recipes(module: ModuleType) -> dict[str, Callable[[], object]]:
    return {
        key: value
        for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not key.startswith("_")
    }


def _function(module: ModuleType, text: str, name: str) -> Callable[[], object]:
    found = _recipes(module)
    if name not in found:
        raise unknown(f"recipe in {text}", name, found)
    parameters = inspect.signature(found[name]).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if needed:
        raise InputError(f"recipe '{text}:{name}' is called without arguments, but it needs {', '.join(needed)}")
    return found[name]


def _existing(path: str, recipe: str) -> Path:
    found = Path(path)
    if not found.is_file():
        beside = sorted(str(p) for p in found.parent.glob("*" + found.suffix)) if found.parent.is_dir() else []
        near = get_close_matches(path, beside, n=1)
        hint = f"; there are {', '.join(beside)}" if beside else ""
        guess = f". Did you mean {near[0]!r}?" if near else ""
        raise InputError(f"recipe {recipe!r}: no file {path!r} here ({Path.cwd()}){hint}{guess}")
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a text file that can be read: {error}") from None


def _load(path: Path) -> ModuleType:
    # Recipes may import their neighbours, as a script would, and packages of the working directory.
    import_from(path.parent, Path.cwd())
    importlib.invalidate_caches()
    spec = _importable(path)
    if spec is None:
        spec = importlib.util.spec_from_file_location(f"metaray_recipe_{path.stem}", path)
        assert spec is not None
        NOT_IMPORTABLE[spec.name] = (
            f"none leads to the recipe file {path}: {_who_else(path)}. Rename the file, or move the class to a module "
            "of its own"
        )
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(spec.name)
    # As an import would: what it defines is found again by its import path, here and in workers.
    sys.modules[spec.name] = module
    try:
        _execute(spec, module, path)
    except BaseException:
        sys.modules.pop(spec.name)
        if before is not None:
            sys.modules[spec.name] = before
        raise
    return module


def _execute(spec: ModuleSpec, module: ModuleType, path: Path) -> None:
    assert spec.loader is not None
    try:
        spec.loader.exec_module(module)
    except InputError:
        raise
    except ValidationError as error:
        raise InputError(explain(error, where=f"recipe file {path}: {error.title}") + _place(error)) from None
    except (Exception, SystemExit) as error:
        if isinstance(error, ImportError) and _is_own_import(error, path):
            raise InputError(f"recipe file {path}: {_explain_import(error)}") from error
        raise InputError(f"recipe file {path} cannot be loaded:\n{lines_of(error)}") from error


def _importable(path: Path) -> ModuleSpec | None:
    """How an import finds a recipe file, as `jobs.omniglot` below the working directory; None if none does."""
    return next((spec for name in _names(path) if (spec := _spec(name)) is not None and _leads_to(spec, path)), None)


def _names(path: Path) -> list[str]:
    """Names that may lead to a file: its path from the working directory, which needs no folder to be known."""
    whole = path.absolute().with_suffix("")
    parts = [whole.relative_to(Path.cwd()).parts] if whole.is_relative_to(Path.cwd()) else []
    return [".".join(found) for found in (*parts, (whole.name,)) if all(map(str.isidentifier, found))]


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a parent is no package; a module without a spec
        return None


def _leads_to(spec: ModuleSpec, path: Path) -> bool:
    return spec.origin is not None and spec.has_location and Path(spec.origin).resolve() == path.resolve()


def _who_else(path: Path) -> str:
    if not path.stem.isidentifier():
        return f"{path.stem!r} is no name of a module"
    spec = _spec(path.stem)
    return f"`import {path.stem}` gives {(spec.origin or 'another module') if spec else 'nothing'}"


def _place(error: Exception) -> str:
    frames = user_frames(error)
    return f" ({shown(frames[-1].filename)}:{frames[-1].lineno}: {frames[-1].line})" if frames else ""


def _is_own_import(error: ImportError, path: Path) -> bool:
    """Whether an import statement of the recipe failed, and not one of what it imports."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen ")]
    return Path(frames[-1].filename).absolute() == path.absolute()


def _explain_import(error: ImportError) -> str:
    found = re.match(r"cannot import name '(\w+)' from '([\w.]+)'", str(error))
    if found is None or found[2] not in sys.modules:
        return str(error)
    module = sys.modules[found[2]]
    names = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
    return str(unknown(f"name in {found[2]}", found[1], names))
