"""Recipes: plain Python functions that return an `Experiment`, named `path/to/file.py:function`."""

import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from pydantic import ValidationError

from metaray.config import explain
from metaray.errors import InputError, unknown
from metaray.training.experiment import Experiment


def load_recipe(recipe: str) -> Experiment:
    """Call the function that `recipe` names, or read an experiment's JSON file.

    Args:
        recipe: `path/to/file.py:function`, or `path/to/experiment.json`.

    Raises:
        InputError: if the file or the function does not exist (lists those that do), returns no experiment, or
            describes one with wrong values.
    """
    found = call_recipe(recipe)
    if not isinstance(found, Experiment):
        hint = "; `metaray tune` takes it" if type(found).__name__ == "Search" else ""
        raise InputError(f"recipe {recipe!r} returned {type(found).__name__}, not an Experiment{hint}")
    return found


def call_recipe(recipe: str) -> object:
    """What the function that `recipe` names returns, or the experiment of a JSON file.

    Raises:
        InputError: if the file or the function does not exist (lists those that do), or it describes something with
            wrong values.
    """
    if recipe.endswith(".json"):
        return Experiment.from_json(_read(_existing(recipe, recipe)), where=recipe)
    text, colon, name = recipe.rpartition(":")
    if not colon or not text.endswith(".py"):
        raise InputError(f"recipe {recipe!r}: write it as path/to/file.py:function, for instance jobs/glyphs.py:demo")
    path = _existing(text, recipe)
    try:
        return _function(_load(path), text, name)()
    except ValidationError as error:
        # Descriptions that a recipe constructs are the user's input, as those read from JSON are.
        raise InputError(explain(error, where=f"recipe {recipe!r}: {error.title}")) from None


def _function(module: ModuleType, text: str, name: str) -> Callable[[], object]:
    found = {
        key: value
        for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not key.startswith("_")
    }
    if name not in found:
        raise unknown(f"recipe in {text}", name, found)
    parameters = inspect.signature(found[name]).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if needed:
        raise InputError(f"recipe '{text}:{name}' is called without arguments, but it needs {', '.join(needed)}")
    recipe: Callable[[], object] = found[name]
    return recipe


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
    for folder in (str(path.parent.absolute()), str(Path.cwd())):
        if folder not in sys.path:
            sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(f"metaray_recipe_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise InputError(f"recipe file {path}: {error}") from error
    except ImportError as error:
        if not _is_own_import(error, path):
            raise
        raise InputError(f"recipe file {path}: {_explain_import(error)}") from error
    return module


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
