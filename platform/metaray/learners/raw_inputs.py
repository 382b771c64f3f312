"""What users hand to a learner, images or numbers, as the compact arrays that a source would hold."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from metaray.data.pictures import decode_image
from metaray.data.preprocessing import ImagePreprocessing, Preprocessing
from metaray.errors import InputError
from metaray.learners.array_images import array_image, split_array
from metaray.learners.containers import described, opened

RawImage = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | NDArray[Any] | Tensor
RawInputs = RawImage | Iterable[Any]


def compact(preprocessing: Preprocessing, x: RawInputs, *, count: int | None = None) -> NDArray[Any]:
    """Raw inputs as [n, *feature]: images as uint8, numbers as float32.

    Args:
        preprocessing: of the learner.
        x: the inputs, or one of them.
        count: how many there must be, where that is known; decides between readings of an array.

    Raises:
        InputError: naming the input that cannot be read or has the wrong shape.
    """
    if isinstance(preprocessing, ImagePreprocessing):
        found = [preprocessing.image(image, where) for image, where in _images(preprocessing, x, count)]
        if not found:
            raise InputError("no images given")
        return np.stack(found)
    shape = preprocessing.feature_shape
    values = _opened_deep(x, "x")
    if shape != (1,) and np.shape(values) == shape:
        values = [values]  # one input
    return numbers(values, shape, "x")


def numbers(values: Any, shape: tuple[int, ...], what: str) -> NDArray[np.float32]:
    """Rows of numbers as float32 [n, *shape]; where a row is one number, [n] will do.

    Raises:
        InputError: naming `what`, if they are no finite numbers, or of another shape.
    """
    raw: Any = None
    try:
        raw = np.asarray(_opened_deep(values, what))
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
    """Whether these numbers are [n]."""
    return bool(np.ndim(_opened_deep(values, "y")) == 1)


def _opened_deep(values: Any, what: str) -> Any:
    """Numbers within lists within lists, whatever each is held in."""
    found = opened(values, what)
    if isinstance(found, Image.Image):
        raise InputError(f"{what} holds an image ({found.mode}, {found.size}), but this learner takes numbers")
    if isinstance(found, list):
        return [one if isinstance(one, int | float) else _opened_deep(one, what) for one in found]
    if isinstance(found, np.ndarray) and found.dtype == object and found.ndim:
        return [_opened_deep(one, what) for one in found]
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


def _images(preprocessing: ImagePreprocessing, x: Any, count: int | None) -> Iterator[tuple[Image.Image, str]]:
    """Each image, and its name in messages."""
    given = opened(x, "x")
    if isinstance(given, np.ndarray) and given.dtype.kind in "OUS" and given.ndim:
        if given.shape[1:] not in ((), (1,)):
            raise InputError(f"x is {described(x)}; give one column, with an image each")
        given = list(given.ravel())
    if isinstance(given, np.ndarray) and given.ndim:
        given = split_array(given, preprocessing, count)
    elif not isinstance(given, list):
        given = [given]
    for place, item in enumerate(given):
        yield _image(item, preprocessing, place)


def _image(item: Any, preprocessing: ImagePreprocessing, place: int) -> tuple[Image.Image, str]:
    where = f"image {place}"
    found = opened(item, where)
    if isinstance(found, Image.Image):
        return found, where
    if isinstance(found, str | os.PathLike):
        path = os.fspath(found)
        return decode_image(_content(Path(path), f"image {path}"), f"image {path} cannot be read"), f"image {path}"
    if hasattr(found, "read"):
        found = _content(found, where)
    if isinstance(found, bytes | bytearray | memoryview):
        return decode_image(bytes(found), f"{where} cannot be read"), where
    if isinstance(found, list):
        found = _nested(found, where)
    if isinstance(found, np.ndarray) and found.ndim:
        return array_image(found, preprocessing, where), where
    raise InputError(f"{where} is {described(item)}; give a path, the bytes of an image file, a PIL image or an array")


def _content(file: Any, where: str) -> bytes:
    """The bytes of a path or an open file."""
    try:
        content = file.read_bytes() if isinstance(file, Path) else file.read()
    except (OSError, ValueError) as error:
        raise InputError(f"{where} cannot be read: {error}") from None
    if not isinstance(content, bytes):
        raise InputError(f"{where} is a file that gives {type(content).__name__}; open it in binary mode")
    return content


def _nested(rows: list[Any], where: str) -> NDArray[Any]:
    try:
        return np.asarray(_opened_deep(rows, where))
    except ValueError as error:
        raise InputError(f"{where} is a list that is no array of pixels: {error}") from None
