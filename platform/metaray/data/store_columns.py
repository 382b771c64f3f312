"""Examples as a column of Arrow, and back without a copy.

Examples of one shape are a fixed-size list of their flattened numbers. Ragged ones are a list with 64-bit offsets, of
numbers [n_i], or of fixed-size lists of the flattened rest [n_i, *rest].
"""

from math import prod
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from metaray.data.arrow_numbers import numbers_in
from metaray.data.ragged import FeatureShape, Ragged, check_lengths, fixed_shape, is_ragged
from metaray.errors import InputError

Examples = Any
"""[examples, *feature], or `Ragged`."""


def column_type(shape: FeatureShape, dtype: str) -> Any:
    """Arrow's type for examples of this shape and type; None if there is none.

    Args:
        shape: Shape of one example.
        dtype: NumPy data type, by name.
    """
    try:
        number = pa.from_numpy_dtype(np.dtype(dtype))
        if not is_ragged(shape):
            return pa.list_(number, prod(fixed_shape(shape, "a store")))
        rest = fixed_shape(shape[1:], "a store")
        return pa.large_list(pa.list_(number, prod(rest)) if rest else number)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None


def column_of(examples: Examples) -> Any:
    """Examples as an array of Arrow."""
    if not isinstance(examples, Ragged):
        flat = pa.array(np.ascontiguousarray(examples).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, prod(examples.shape[1:]))
    values, rest = pa.array(np.ascontiguousarray(examples.values).reshape(-1)), examples.values.shape[1:]
    if rest:
        values = pa.FixedSizeListArray.from_arrays(values, prod(rest))
    return pa.LargeListArray.from_arrays(pa.array(examples.offsets), values)


def examples_in(column: Any, shape: FeatureShape) -> Examples:
    """The examples in a column of `column_type`, as views of it.

    Raises:
        InputError: If they are ragged and an offset or example is wrong; the message says which.
    """
    if not is_ragged(shape):
        flat: NDArray[Any] = numbers_in(column.flatten())
        return flat.reshape(-1, *fixed_shape(shape, "a store"))
    values, rest = column.values, fixed_shape(shape[1:], "a store")
    if rest:
        if values.null_count:
            raise InputError("a value of an example is missing")
        values = values.flatten()
    if values.null_count:
        raise InputError("a value of an example is missing")
    numbers: NDArray[Any] = numbers_in(values).reshape(-1, *rest)
    offsets: NDArray[np.int64] = numbers_in(column.offsets)
    if offsets[0] != 0 or offsets[-1] != len(numbers):
        raise InputError(f"its examples go from value {offsets[0]} to {offsets[-1]} of {len(numbers)}")
    if (bad := np.flatnonzero(np.diff(offsets) < 0)).size:
        raise InputError(f"example {bad[0]} ends before it begins (values {offsets[bad[0]]} to {offsets[bad[0] + 1]})")
    check_lengths(offsets, "example")
    return Ragged(numbers, offsets)
