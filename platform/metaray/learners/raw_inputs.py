"""What users hand to a learner, images or numbers, as the compact arrays that a source would hold."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from metaray.containers import described, opened
from metaray.data.pictures import decode_image
from metaray.data.preprocessing import ImagePreprocessing, Preprocessing
from metaray.errors import InputError
from metaray.learners.array_images import array_image, split_array
from metaray.numbers import numbers, opened_deep

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
    values = opened_deep(x, "x")
    if shape != (1,) and np.shape(values) == shape:
        values = [values]  # one input
    return numbers(values, shape, "x")


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
        return np.asarray(opened_deep(rows, where))
    except ValueError as error:
        raise InputError(f"{where} is a list that is no array of pixels: {error}") from None
