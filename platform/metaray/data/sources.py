"""`SOURCES` is the explicit dict of where tasks come from."""

from metaray.data.cactus import CACTUs
from metaray.data.class_store import ClassStore
from metaray.data.function_family import FunctionFamily
from metaray.data.glyphs import Glyphs
from metaray.data.group_table import GroupTable
from metaray.data.source import Source
from metaray.data.umtra import UMTRA

SOURCES: dict[str, type[Source]] = {
    "class_store": ClassStore,
    "glyphs": Glyphs,
    "umtra": UMTRA,
    "cactus": CACTUs,
    "function_family": FunctionFamily,
    "group_table": GroupTable,
}
