"""Arrays of pixels: which axis is what, where their shape tells, and each image by itself.

Three axes are one image [height, width, channels] or [channels, height, width], or, for a learner of grey, [n, height,
width]. Where two readings fit, the number of labels decides, or the learner's own image size; else it is refused.
"""

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metaray.data.pictures import ValueRange, scaled
from metaray.errors import InputError

CHANNELS = {"HWC": (1, 2, 3, 4), "CHW": (1, 3, 4)}


class ImageForm(Protocol):
    """The form of a learner's images: the part of the preprocessing that decides how an array is read."""

    @property
    def value_range(self) -> ValueRange | None:
        """The numbers that mean black and white."""

    @property
    def channels(self) -> int:
        """Number of channels: 1 for grey, 3 for colour."""

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one example: (channels, height, width)."""


class _Reading(NamedTuple):
    """What an array may be: its axes, the number of images, and [channels, height, width] of one."""

    axes: str
    images: int
    image: tuple[int, ...]


def split_array(array: NDArray[Any], form: ImageForm, count: int | None) -> list[NDArray[Any]]:
    """Split an array that holds one or several images into single images.

    Args:
        array: Array of numbers with at least one axis.
        form: Form of the images that the learner takes.
        count: Expected number of images, if known.

    Raises:
        InputError: If the shape is not that of images, or can be read in more than one way.
    """
    if len(array) == 0:
        return []
    if array.ndim not in (2, 3):
        if array.ndim == 1:
            raise InputError(f"x is an array of shape {list(array.shape)} and type {array.dtype}; {_SHAPES}")
        return list(array)
    readings = _narrowed(_readings(array.shape), form, count)
    if len(readings) != 1:
        may = " or ".join(_told(reading) for reading in readings)
        why = f"which may be {may}" if may else "in which a learner of colour finds no channels"
        raise InputError(
            f"x is an array of shape {list(array.shape)} and type {array.dtype}, {why}; give a list of images, or "
            "[n, height, width, channels]"
        )
    return list(array) if readings[0].axes == "NHW" else [array]


def array_image(array: NDArray[Any], form: ImageForm, where: str) -> Image.Image:
    """Convert one image of an array to Pillow's form, with 8 bits a channel.

    Raises:
        InputError: If its shape or type is not that of one image; the message names the image `where`, and both.
    """
    named = f"{where} is an array of shape {array.shape} and type {array.dtype}"
    readings = [reading for reading in _readings(array.shape) if reading.axes in ("HW", "HWC", "CHW")]
    readings = [one for one in readings if one.image == form.feature_shape] or readings
    if array.size == 0 or len(readings) != 1:
        raise InputError(f"{named}; {_SHAPES}")
    channels = readings[0].image[0]
    if channels in (2, 4) and array.dtype != np.uint8:
        raise InputError(f"{named}; give transparency as uint8, or leave it out")
    pixels = scaled(array, form.value_range, named)
    if readings[0].axes == "CHW":
        pixels = np.moveaxis(pixels, 0, -1)
    return Image.fromarray(np.ascontiguousarray(pixels.reshape(pixels.shape[:2]) if channels == 1 else pixels))


_SHAPES = (
    "give uint8 arrays [height, width], or of 1, 3 or 4 channels [height, width, channels] or [channels, height, "
    "width], that can be read in one way"
)


def _readings(shape: tuple[int, ...]) -> list[_Reading]:
    """What an array of two or three axes may be."""
    if len(shape) == 2:
        return [_Reading("HW", 1, (1, *shape))]
    if len(shape) != 3:
        return []
    first, second, last = shape
    found = [_Reading("HWC", 1, (last, first, second))] if last in CHANNELS["HWC"] else []
    found += [_Reading("CHW", 1, shape)] if first in CHANNELS["CHW"] else []
    # One grey image is the same either way.
    return found if first == 1 else [*found, _Reading("NHW", first, (1, second, last))]


def _narrowed(readings: list[_Reading], form: ImageForm, count: int | None) -> list[_Reading]:
    """Those that are left by the number of images, the learner's image size, and what is usual, in this order."""
    readings = [one for one in readings if one.images == count] or readings
    readings = [one for one in readings if one.image == form.feature_shape] or readings
    if form.channels == 3:
        return [one for one in readings if one.axes != "NHW" or one.images == count]
    if {one.axes for one in readings} == {"NHW", "HWC"}:  # grey images of up to four pixels' width are not usual
        return [one for one in readings if one.axes == "HWC"]
    return readings


def _told(reading: _Reading) -> str:
    channels, height, width = reading.image
    if reading.axes == "NHW":
        return f"{reading.images} grey images of {height}x{width}"
    order = "[channels, height, width]" if reading.axes == "CHW" else "[height, width, channels]"
    return f"one image {order} of {height}x{width} with {channels} channel{'s' if channels > 1 else ''}"
