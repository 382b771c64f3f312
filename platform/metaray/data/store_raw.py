"""What a store of vectors holds beside them: the inputs that they were made of, as these lay in their own store."""

import hashlib
from typing import Any, Self

import numpy as np

from metaray.config import Config
from metaray.data.ragged import FeatureShape, Ragged
from metaray.data.store_columns import Examples, column_type, examples_in
from metaray.errors import InputError

RAW = "raw"
"""Name of the column of raw inputs."""


class RawColumn(Config):
    """The metadata of a store's raw inputs.

    Attributes:
        feature_shape: Shape of one raw input; its first axis is None if they are ragged.
        dtype: NumPy data type of the raw inputs, by name.
        fingerprint: SHA-256 (hex) over the raw inputs; the store's own fingerprint covers the vectors alone.
    """

    feature_shape: FeatureShape
    dtype: str
    fingerprint: str

    @classmethod
    def of(cls, raw: Examples) -> Self:
        """Describe raw inputs [examples, *feature], or ragged ones."""
        values = raw.values if isinstance(raw, Ragged) else raw
        shape: FeatureShape = (None, *values.shape[1:]) if isinstance(raw, Ragged) else values.shape[1:]
        return cls(feature_shape=shape, dtype=values.dtype.name, fingerprint=digest(raw))

    def inputs_in(self, batch: Any) -> Examples:
        """The raw inputs in a record batch, as views of it.

        Raises:
            InputError: If the batch has no such inputs.
        """
        place = batch.schema.get_field_index(RAW)
        if place < 0 or batch.column(place).type != column_type(self.feature_shape, self.dtype):
            raise InputError("it has no such raw inputs as its description says")
        if batch.column(place).null_count:
            raise InputError("a raw input is missing")
        return examples_in(batch.column(place), self.feature_shape)

    def check(self, raw: Examples) -> None:
        """Compare raw inputs with the fingerprint.

        Raises:
            InputError: If they differ.
        """
        if digest(raw) != self.fingerprint:
            raise InputError(f"its raw inputs don't match their fingerprint {self.fingerprint}")


def digest(raw: Examples) -> str:
    """SHA-256 (hex) over raw inputs."""
    found = hashlib.sha256()
    if isinstance(raw, Ragged):
        found.update(np.ascontiguousarray(raw.offsets).data)
    found.update(np.ascontiguousarray(raw.values if isinstance(raw, Ragged) else raw).data)
    return found.hexdigest()
