"""Where tasks come from."""

from metaray.data.class_store import ClassStore
from metaray.data.glyphs import Glyphs
from metaray.data.source import Source

SOURCES: dict[str, type[Source]] = {"class_store": ClassStore, "glyphs": Glyphs}

__all__ = ["SOURCES", "ClassStore", "Glyphs", "Source"]
