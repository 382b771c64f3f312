"""Rows of numbers as users hold them, as arrays of 32 bits: inputs that are vectors, and targets that are values."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metaray.containers import opened
from metaray.errors import InputError


def numbers(values: Any, shape: tuple[int, ...], what: str) -> NDArray[np.float32]:
    """Convert rows of numbers to float32 [n, *shape]; if a row is one number, [n] is accepted.

    Raises:
        InputError: If they are not finite numbers, or have another shape; the message names `what`.
    """
    raw: Any = None
    try:
        raw = np.asarray(opened_deep(values, what))
        if raw.dtype.kind not in "biufOSU":
            raise TypeError(f"{raw.dtype} is no type of real numbers")
        # As float64 first: what is too large for float32 is told from what was infinite.
        array = np.asarray(raw.tolist() if raw.dtype.kind in "SU" else raw, dtype=np.float64)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what} must be an array of numbers, {_form(shape)}: {error}{_place_of_text(raw)}") from None
    if len(array.shape) == 0 or len(array) == 0:
        raise InputError(f"{what} holds nothing; give an array of numbers, {_form(shape)}")
    if array.ndim == 1 and shape == (1,):
        array = array[:, None]
    if array.shape[1:] != shape:
        raise InputError(f"{what} has the shape {list(array.shape)}, but this learner takes {_form(shape)}")
    bad = np.argwhere(~(np.abs(array) <= np.finfo(np.float32).max))
    if len(bad):
        value = array[tuple(bad[0])]
        raise InputError(f"row {bad[0][0]} of {what} holds {value:g}, which is no finite number of 32 bits")
    found: NDArray[np.float32] = array.astype(np.float32)
    return found


def is_flat(values: Any) -> bool:
    """Whether the numbers have the shape [n]."""
    return bool(np.ndim(opened_deep(values, "y")) == 1)


def opened_deep(values: Any, what: str) -> Any:
    """Numbers within lists within lists, whatever each is held in."""
    found = opened(values, what)
    if isinstance(found, Image.Image):
        raise InputError(f"{what} holds an image ({found.mode}, {found.size}), but this learner takes numbers")
    if isinstance(found, list):
        return [one if isinstance(one, int | float) else opened_deep(one, what) for one in found]
    if isinstance(found, np.ndarray) and found.dtype == object and found.ndim:
        return [opened_deep(one, what) for one in found]
    return found


def _place_of_text(raw: Any) -> str:
    """Where the first element is that is no number, for messages."""
    if raw is None or raw.dtype.kind not in "OSU":
        return ""
    for place, value in np.ndenumerate(raw):
        try:
            np.float64(value)
        except (TypeError, ValueError):
            return f" (row {place[0]})" if place else ""
    return ""


def _form(shape: tuple[int, ...]) -> str:
    whole = ", ".join(["n", *map(str, shape)])
    return f"[{whole}]" + (" or [n]" if shape == (1,) else "")
