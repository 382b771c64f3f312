"""What users hand to a learner, images or numbers, as the compact arrays that a source would hold."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metaray.data.image_files import open_image
from metaray.data.preprocessing import ImagePreprocessing, Preprocessing
from metaray.errors import InputError

RawImage = Path | str | Image.Image | NDArray[Any]
RawInputs = Sequence[RawImage] | Sequence[float] | Sequence[Sequence[float]] | NDArray[Any]


def compact(preprocessing: Preprocessing, x: RawInputs) -> NDArray[Any]:
    """Raw inputs as [n, *feature]: images as uint8, numbers as float32.

    Raises:
        InputError: naming the input that cannot be read or has the wrong shape.
    """
    if isinstance(preprocessing, ImagePreprocessing):
        if len(x) == 0:
            raise InputError("no images given")
        return np.stack([preprocessing.image(_image(item, i)) for i, item in enumerate(x)])
    return numbers(x, preprocessing.feature_shape, "x")


def numbers(values: Any, shape: tuple[int, ...], what: str) -> NDArray[np.float32]:
    """Rows of numbers as float32 [n, *shape]; where a row is one number, [n] will do.

    Raises:
        InputError: naming `what`, if they are no finite numbers, or of another shape.
    """
    try:
        # As float64 first: what is too large for float32 is told from what was infinite.
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} must be an array of numbers, {_form(shape)}: {error}") from None
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
    return array.astype(np.float32)


def _form(shape: tuple[int, ...]) -> str:
    whole = ", ".join(["n", *map(str, shape)])
    return f"[{whole}]" + (" or [n]" if shape == (1,) else "")


def _image(item: Any, position: int) -> Image.Image:
    if isinstance(item, Image.Image):
        return item
    if isinstance(item, str | Path):
        try:
            with open_image(item) as opened:
                opened.load()
                return opened
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"image {item} cannot be read: {error}") from None
    array = np.asarray(item)
    if (
        array.dtype != np.uint8
        or array.size == 0
        or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4)))
    ):
        raise InputError(
            f"image {position} is an array of shape {array.shape} and type {array.dtype}; "
            "give uint8 arrays [height, width] or [height, width, 3]"
        )
    return Image.fromarray(array)
