"""Numbers of Arrow as an array of numpy, without pandas."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_DTYPES = {pa.from_numpy_dtype(np.dtype(code)): np.dtype(code) for code in "bBhHiIlLefd"}


def numbers_in(array: Any) -> NDArray[Any]:
    """The numbers of an Arrow array [n] as a read-only view [n].

    It is `array.to_numpy()` without importing pandas, which takes half a second in each process that opens a store.

    Raises:
        pyarrow.ArrowInvalid: If some are missing, or they are no numbers that can be seen without a copy.
    """
    dtype = _DTYPES.get(array.type)
    if dtype is None or array.null_count or not len(array):
        found: NDArray[Any] = array.to_numpy(zero_copy_only=True)
        return found
    start = array.offset * dtype.itemsize
    view = np.frombuffer(array.buffers()[1], dtype, count=len(array), offset=start)
    view.flags.writeable = False
    return view
