"""What a store of vectors holds beside them: the inputs that they were made of, as these lay in their own store."""

import hashlib
from typing import Any, Self

import numpy as np

from metaray.config import Config
from metaray.data.ragged import FeatureShape, Ragged
from metaray.data.store_columns import Examples, column_type, examples_in
from metaray.errors import InputError

RAW = "raw"
"""The name of the column."""


class RawColumn(Config):
    """What the schema metadata says of it.

    Attributes:
        feature_shape: Shape of one raw input; the first axis is None where they are ragged.
        dtype: NumPy's name of their type.
        fingerprint: SHA-256 (hex) over the inputs; that of the store covers the vectors alone.
    """

    feature_shape: FeatureShape
    dtype: str
    fingerprint: str

    @classmethod
    def of(cls, raw: Examples) -> Self:
        """Description of inputs [examples, *feature], or of ragged ones."""
        values = raw.values if isinstance(raw, Ragged) else raw
        shape: FeatureShape = (None, *values.shape[1:]) if isinstance(raw, Ragged) else values.shape[1:]
        return cls(feature_shape=shape, dtype=values.dtype.name, fingerprint=digest(raw))

    def inputs_in(self, batch: Any) -> Examples:
        """The inputs in a record batch, as views of it.

        Raises:
            InputError: If there are none such.
        """
        place = batch.schema.get_field_index(RAW)
        if place < 0 or batch.column(place).type != column_type(self.feature_shape, self.dtype):
            raise InputError("it has no such raw inputs as its description says")
        if batch.column(place).null_count:
            raise InputError("a raw input is missing")
        return examples_in(batch.column(place), self.feature_shape)

    def check(self, raw: Examples) -> None:
        """Compare inputs with the fingerprint.

        Raises:
            InputError: If they are others.
        """
        if digest(raw) != self.fingerprint:
            raise InputError(f"its raw inputs don't match their fingerprint {self.fingerprint}")


def digest(raw: Examples) -> str:
    """SHA-256 (hex)."""
    found = hashlib.sha256()
    if isinstance(raw, Ragged):
        found.update(np.ascontiguousarray(raw.offsets).data)
    found.update(np.ascontiguousarray(raw.values if isinstance(raw, Ragged) else raw).data)
    return found.hexdigest()
