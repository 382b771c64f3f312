"""Where tasks come from. What is offered here is imported when it is asked for: names of files need no numpy."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metaray.data.cactus import CACTUs
    from metaray.data.class_store import ClassStore
    from metaray.data.function_family import FunctionFamily
    from metaray.data.glyphs import Glyphs
    from metaray.data.group_table import GroupTable
    from metaray.data.source import Source
    from metaray.data.sources import SOURCES
    from metaray.data.umtra import UMTRA
    from metaray.data.writing import write_class_store

__all__ = [
    "SOURCES",
    "CACTUs",
    "ClassStore",
    "FunctionFamily",
    "Glyphs",
    "GroupTable",
    "Source",
    "UMTRA",
    "write_class_store",
]

_HOMES = {
    "SOURCES": "sources",
    "CACTUs": "cactus",
    "ClassStore": "class_store",
    "FunctionFamily": "function_family",
    "Glyphs": "glyphs",
    "GroupTable": "group_table",
    "Source": "source",
    "UMTRA": "umtra",
    "write_class_store": "writing",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
