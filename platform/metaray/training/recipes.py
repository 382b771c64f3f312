"""Recipes: plain Python functions that return an `Experiment`, named `path/to/file.py:function`."""

import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType

from metaray.errors import InputError, unknown
from metaray.training.experiment import Experiment


def load_recipe(recipe: str) -> Experiment:
    """Call the function that `recipe` names, or read an experiment's JSON file.

    Args:
        recipe: `path/to/file.py:function`, or `path/to/experiment.json`.

    Raises:
        InputError: if the file or the function does not exist (lists those that do), or returns no experiment.
    """
    if recipe.endswith(".json"):
        path = _existing(recipe, recipe)
        return Experiment.from_json(path.read_text(), where=recipe)
    text, colon, name = recipe.rpartition(":")
    if not colon or not text.endswith(".py"):
        raise InputError(f"recipe {recipe!r}: write it as path/to/file.py:function, for instance jobs/glyphs.py:demo")
    module = _load(_existing(text, recipe))
    found = {
        key: value
        for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not key.startswith("_")
    }
    if name not in found:
        raise unknown(f"recipe in {text}", name, found)
    experiment = found[name]()
    if not isinstance(experiment, Experiment):
        raise InputError(f"recipe {recipe!r} returned {type(experiment).__name__}, not an Experiment")
    return experiment


def _existing(path: str, recipe: str) -> Path:
    found = Path(path)
    if not found.is_file():
        beside = sorted(str(p) for p in found.parent.glob("*" + found.suffix)) if found.parent.is_dir() else []
        hint = f"; there are {', '.join(beside)}" if beside else ""
        raise InputError(f"recipe {recipe!r}: no file {path!r} here ({Path.cwd()}){hint}")
    return found


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
    return module
