"""The public names of metaray, read from its source: what the reference has a page for. Nothing is imported.

Public is what `import metaray` offers, what the `__all__` of a room of the house lists, and what the guides name beside
them: interfaces to write a class of one's own below, and what the functions return.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "platform" / "metaray"

INTERFACES = (
    "metaray.algorithms.context.Context",
    "metaray.algorithms.task_shape.TaskShape",
    "metaray.api.compare.Comparison",
    "metaray.api.evaluate.ModelScore",
    "metaray.api.search_end.SearchReport",
    "metaray.config.replace",
    "metaray.data.draws.Draws",
    "metaray.data.task.Task",
    "metaray.optimizers.schedules.Schedule",
    "metaray.records.estimate.Estimate",
    "metaray.records.result.Result",
    "metaray.tracking.report.Report",
    "metaray.tracking.tracker.Tracker",
)
"""What pages name beside the lists of the rooms."""

FRONT_DOOR = "metaray"
"""The page of functions; a class has the page of the room it lives in."""


def public_names(package: Path = PACKAGE, beside: tuple[str, ...] = INTERFACES) -> dict[str, list[str]]:
    """Where each public name is defined, such as `metaray.algorithms.maml.MAML`, by the page that shows it."""
    homes = set(beside)
    for file in (package / "__init__.py", *sorted(package.glob("*/__init__.py"))):
        homes.update(_homes(file, package))
    pages: dict[str, list[str]] = {}
    for home in sorted(homes, key=lambda one: one.rpartition(".")[2].lower()):
        pages.setdefault(_page_of(home), []).append(home)
    return pages


def _page_of(home: str) -> str:
    parts = home.split(".")
    return FRONT_DOOR if len(parts) == 2 or parts[1] in ("api", "cli", "config", "errors") else parts[1]


def _homes(file: Path, package: Path) -> list[str]:
    """Where the names in a file's `__all__` are defined, in order."""
    module = ".".join(("metaray", *file.parent.relative_to(package).parts))
    listed = _value(_parsed(file), "__all__") or []
    return [_defined(f"{module}.{name}", package) for name in listed]


def _defined(home: str, package: Path) -> str:
    """Follow a name through the modules that pass it on, to the one that defines it."""
    module, _, name = home.rpartition(".")
    path = package.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in _statements(_parsed(file)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for one in node.names:
                if (one.asname or one.name) == name:
                    return _defined(f"{node.module}.{one.name}", package)
    return home


@cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """Those of the module itself, also below `if TYPE_CHECKING`."""
    for node in tree.body:
        yield node
        if isinstance(node, ast.If):
            yield from node.body


def _value(tree: ast.Module, name: str) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(one, ast.Name) and one.id == name for one in node.targets):
            return list(ast.literal_eval(node.value))
    return None
