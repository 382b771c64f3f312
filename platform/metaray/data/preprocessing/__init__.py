"""The way from a raw input to the compact array a source holds, and to the numbers a model sees: one file a kind."""

from metaray.data.preprocessing.category_column import CategoryColumn
from metaray.data.preprocessing.encoded import EncodedPreprocessing
from metaray.data.preprocessing.image import RESAMPLING, ImagePreprocessing, Resample
from metaray.data.preprocessing.items import ItemColumn, ItemRows
from metaray.data.preprocessing.labels_column import LabelsColumn
from metaray.data.preprocessing.number_column import NumberColumn
from metaray.data.preprocessing.preprocessing import MASK, Preprocessing, RawInputs, mask_of
from metaray.data.preprocessing.table import TablePreprocessing
from metaray.data.preprocessing.text import TextPreprocessing
from metaray.data.preprocessing.vector import VectorPreprocessing
from metaray.data.preprocessing.vector_column import VectorColumn
from metaray.data.ragged import Compact

PREPROCESSINGS: dict[str, type[Preprocessing]] = {
    "encoded": EncodedPreprocessing,
    "image": ImagePreprocessing,
    "table": TablePreprocessing,
    "text": TextPreprocessing,
    "vector": VectorPreprocessing,
}

__all__ = [
    "MASK",
    "PREPROCESSINGS",
    "RESAMPLING",
    "CategoryColumn",
    "Compact",
    "EncodedPreprocessing",
    "ImagePreprocessing",
    "ItemColumn",
    "ItemRows",
    "LabelsColumn",
    "NumberColumn",
    "Preprocessing",
    "RawInputs",
    "Resample",
    "TablePreprocessing",
    "TextPreprocessing",
    "VectorColumn",
    "VectorPreprocessing",
    "mask_of",
]
