"""What users of torch, numpy, pandas, arrow and Python hold values in, taken apart into arrays and lists."""

import io
import sys
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metaray.errors import InputError

if TYPE_CHECKING:
    import torch

# One value each, even where they can be iterated over.
WHOLE = (str, bytes, bytearray, memoryview, PathLike, Image.Image, io.IOBase)


def opened(value: Any, what: str) -> Any:
    """Convert containers: array-likes to tensors or arrays, other iterables to lists; single values are unchanged.

    Args:
        value: A container, or a single value.
        what: Name of the value for messages.

    Raises:
        InputError: If the container has no order (sets, dicts), hides values (masks), or cannot be copied to this
            process.
    """
    # Samplers do without torch, and who has not imported it holds no tensor.
    if "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor):
        return _of_tensor(value, what)
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise InputError(f"{what} is a masked array, and the masked values are missing; leave their examples out")
    if isinstance(value, memoryview) and (value.ndim != 1 or value.itemsize != 1):
        return np.asarray(value)
    if isinstance(value, WHOLE):
        return value
    if isinstance(value, Mapping | set | frozenset):
        raise InputError(f"{what} is of type {type(value).__name__}, which has no order of examples; give a list")
    if hasattr(type(value), "as_py"):  # a scalar of arrow
        return value.as_py()
    if hasattr(type(value), "__array__"):
        try:
            return np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{what} is of type {type(value).__name__} and can't become a numpy array: {error}"
            ) from None
    if hasattr(value, "read") or not (isinstance(value, Iterable) or hasattr(type(value), "__getitem__")):
        return value
    return list(value)


def opened_whole(value: Any, what: str) -> NDArray[Any] | list[Any]:
    """Convert a container to an array or a list.

    Raises:
        InputError: If `opened` raises it, or the value is not a container.
    """
    found = opened(value, what)
    if isinstance(found, np.ndarray) and found.ndim > 0:
        return found
    if not isinstance(found, list):
        raise InputError(f"{what} is {described(value)}; give a list or an array with one for each example")
    return found


def described(value: Any) -> str:
    """Describe a value for a message: its type, with its shape, or with its text if that is short."""
    if value is None:
        return "None"
    kind = type(value).__name__
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        of = f" of {value.dtype}" if hasattr(value, "dtype") else ""
        return f"of type {kind} and shape {list(shape)}{of}"
    text = repr(value)
    return f"of type {kind} ({text})" if len(text) <= 40 and text.isprintable() else f"of type {kind}"


def _of_tensor(tensor: "torch.Tensor", what: str) -> NDArray[Any]:
    import torch

    try:
        here = tensor.detach().cpu().resolve_conj().resolve_neg()
        # numpy has no such floats; as float32 they are the same numbers.
        wide = here.float() if here.dtype == torch.bfloat16 else here
        array: NDArray[Any] = wide.numpy()
        return array
    except (TypeError, RuntimeError, NotImplementedError) as error:
        shown = f"a tensor of shape {list(tensor.shape)}, type {tensor.dtype} and layout {tensor.layout}"
        raise InputError(f"{what} is {shown}; give a dense tensor of a type that numpy has ({error})") from None
