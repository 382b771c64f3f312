"""Finding recipes in Python files by reading them: none of their code runs.

A recipe is a function at the top level of a file, without a leading underscore, that can be called without arguments
and says that it returns an `Experiment` or a `Search`; one that says nothing counts where what it returns is written
as `Experiment(...)`, `Search(...)` or `replace(...)`.
"""

import ast
import inspect
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from metaray.errors import InputError

KINDS = {"Experiment": "experiment", "Search": "search"}
DERIVED = "replace"
BY_DEFAULT = ("jobs", ".")


class RecipeFound(NamedTuple):
    """A recipe that was found in a Python file.

    Attributes:
        recipe: Name of the recipe, `path/to/file.py:function`, as commands take it.
        kind: "experiment" or "search"; a function that only derives from another recipe counts as an experiment.
        summary: First line of the function's docstring; empty without a docstring.
    """

    recipe: str
    kind: str
    summary: str


class Found(NamedTuple):
    """The recipes that a search for recipes found.

    Attributes:
        recipes: The recipes, sorted by file and in the order of each file.
        unread: Sentences, one about each file that could not be read.
    """

    recipes: list[RecipeFound]
    unread: list[str]


def find_recipes(places: Sequence[str] = ()) -> Found:
    """Find the recipes in Python files, and in the Python files directly inside folders.

    Args:
        places: Paths of files and folders; if empty, `jobs` and the working directory.

    Raises:
        InputError: If a place is neither a folder nor a Python file.
    """
    recipes: list[RecipeFound] = []
    unread: list[str] = []
    for path in _files(places):
        try:
            recipes += _recipes(path)
        except (OSError, UnicodeDecodeError) as error:
            unread.append(f"{path} cannot be read: {error}")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            where = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
            what = error.msg if isinstance(error, SyntaxError) else error
            unread.append(f"{path}{where} is no valid Python: {what}")
    return Found(recipes, unread)


def _files(places: Sequence[str]) -> Iterator[Path]:
    for place in map(Path, places or [one for one in BY_DEFAULT if Path(one).is_dir()]):
        if place.is_dir():
            yield from sorted(path for path in place.glob("*.py") if path.is_file())
        elif place.is_file() and place.suffix == ".py":
            yield place
        else:
            what = "is no Python file" if place.is_file() else "does not exist"
            raise InputError(
                f"{str(place)!r} {what} (looked in {Path.cwd()}): name a folder, or a file as path/to/x.py"
            )


def _recipes(path: Path) -> Iterable[RecipeFound]:
    tree = ast.parse(path.read_bytes(), filename=str(path))
    # Of two functions with one name the later is the one that a call finds.
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    for name, function in functions.items():
        if name.startswith("_") or _needed(function.args):
            continue
        if (kind := _kind(function)) is not None:
            told = inspect.cleandoc(ast.get_docstring(function) or "").partition("\n")[0]
            yield RecipeFound(f"{path}:{name}", kind, told)


def _needed(arguments: ast.arguments) -> bool:
    """Whether a function cannot be called without arguments."""
    positional = len(arguments.posonlyargs) + len(arguments.args)
    return positional > len(arguments.defaults) or any(default is None for default in arguments.kw_defaults)


def _kind(function: ast.FunctionDef) -> str | None:
    if function.returns is not None:
        return KINDS.get(_last_name(function.returns))
    returned = (node.value for node in _own(function) if isinstance(node, ast.Return))
    called = {_last_name(value.func) for value in returned if isinstance(value, ast.Call)}
    known = [KINDS[name] for name in sorted(called & KINDS.keys())]
    return known[0] if known else KINDS["Experiment"] if DERIVED in called else None


def _own(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """What belongs to a function, and not to one inside it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


def _last_name(node: ast.expr) -> str:
    """`Experiment` of `Experiment`, `metaray.Experiment` and "metaray.Experiment" alike; empty for all else."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.rpartition(".")[2].strip()
    return node.id if isinstance(node, ast.Name) else ""
