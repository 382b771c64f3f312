"""Images as users give them: paths, bytes, files, Pillow's, arrays of pixels, in any container."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metaray.containers import described, opened
from metaray.data.pictures import decode_image
from metaray.data.preprocessing.array_images import ImageForm, array_image, split_array
from metaray.errors import InputError
from metaray.numbers import opened_deep


def raw_images(form: ImageForm, x: Any, count: int | None) -> Iterator[tuple[Image.Image, str]]:
    """Iterate over raw images, each with its name for messages.

    Args:
        form: Form of the learner's images.
        x: Paths, files, bytes of files, PIL images or arrays; a single one, or any container of them.
        count: Expected number of images, if known; it decides between the possible readings of an array.

    Raises:
        InputError: If an image cannot be read; the message names it.
    """
    given = opened(x, "x")
    if isinstance(given, np.ndarray) and given.dtype.kind in "OUS" and given.ndim:
        if given.shape[1:] not in ((), (1,)):
            raise InputError(f"x is {described(x)}; give one column, with an image each")
        given = list(given.ravel())
    if isinstance(given, np.ndarray) and given.ndim:
        given = split_array(given, form, count)
    elif not isinstance(given, list):
        given = [given]
    for place, item in enumerate(given):
        yield _image(item, form, place)


def _image(item: Any, form: ImageForm, place: int) -> tuple[Image.Image, str]:
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
        return array_image(found, form, where), where
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
