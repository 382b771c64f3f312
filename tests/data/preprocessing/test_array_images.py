"""Which axis of an array of pixels is what."""

import re
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from metaray.data.preprocessing import ImagePreprocessing
from metaray.data.preprocessing.array_images import array_image, split_array
from metaray.errors import InputError

GREY, COLOUR = ImagePreprocessing(height=6, width=6), ImagePreprocessing(height=6, width=6, mode="RGB")
TINY = ImagePreprocessing(height=4, width=4)
MISTAKABLE = ImagePreprocessing(height=3, width=3, mode="RGB")


def pixels(*shape: int) -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)


@pytest.mark.parametrize(
    ("shape", "preprocessing", "count", "images"),
    [
        ((9, 7), GREY, None, 1),
        ((9, 7, 3), GREY, None, 1),
        ((9, 7, 1), GREY, None, 1),
        ((9, 7, 2), GREY, None, 1),
        ((9, 7, 4), COLOUR, None, 1),
        ((1, 9, 7), GREY, None, 1),
        ((5, 9, 7), GREY, None, 5),
        ((3, 9, 7), GREY, 3, 3),
        ((3, 6, 6), GREY, None, 3),
        ((3, 9, 7), COLOUR, None, 1),
        ((3, 9, 7), COLOUR, 3, 3),
        ((5, 9, 7), COLOUR, 5, 5),
        ((5, 4, 4), TINY, None, 5),
        ((4, 4, 4), TINY, None, 4),
        ((5, 9, 7, 3), GREY, None, 5),
        ((5, 3, 9, 7), COLOUR, None, 5),
        ((1, 1, 9, 7), GREY, None, 1),
        ((0, 9, 7), GREY, None, 0),
    ],
)
def test_how_many_images(
    shape: tuple[int, ...], preprocessing: ImagePreprocessing, count: int | None, images: int
) -> None:
    found = split_array(pixels(*shape), preprocessing, count)
    assert len(found) == images
    for one in found:
        array_image(one, preprocessing, "image")


@pytest.mark.parametrize(
    ("shape", "preprocessing", "message"),
    [
        ((7,), GREY, "x is an array of shape [7] and type uint8; give uint8 arrays [height, width]"),
        (
            (3, 28, 3),
            GREY,
            "x is an array of shape [3, 28, 3] and type uint8, which may be one image [height, width, channels] of "
            "3x28 with 3 channels or one image [channels, height, width] of 28x3 with 3 channels or 3 grey images of "
            "28x3; give a list of images, or [n, height, width, channels]",
        ),
        ((3, 28, 3), COLOUR, "which may be one image [height, width, channels] of 3x28 with 3 channels or one image"),
        ((3, 9, 7), GREY, "one image [channels, height, width] of 9x7 with 3 channels or 3 grey images of 9x7"),
        ((3, 3, 3), MISTAKABLE, "which may be"),
        (
            (5, 9, 7),
            COLOUR,
            "x is an array of shape [5, 9, 7] and type uint8, in which a learner of colour finds no channels",
        ),
    ],
)
def test_a_shape_that_may_be_several_things_is_refused(
    shape: tuple[int, ...], preprocessing: ImagePreprocessing, message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        split_array(pixels(*shape), preprocessing, None)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_every_order_and_layout_is_the_same_picture(mode: Literal["L", "RGB"]) -> None:
    preprocessing = ImagePreprocessing(height=6, width=6, mode=mode)
    image = pixels(9, 7, 3)
    wanted = preprocessing.image(Image.fromarray(image))
    bytes_reversed = (image.astype(np.uint16) * 257).astype(">u2")
    frozen = image.copy()
    frozen.flags.writeable = False
    for given in (
        image,
        image.transpose(2, 0, 1),
        np.asfortranarray(image),
        np.repeat(image, 2, axis=0)[::2],
        frozen,
        bytes_reversed,
    ):
        assert np.array_equal(preprocessing.image(array_image(given, preprocessing, "x")), wanted)
    ranged = ImagePreprocessing(height=6, width=6, mode=mode, value_range=(0, 1))
    for floats in (image / 255, (image / 255).astype(np.float32).transpose(2, 0, 1)):
        assert np.array_equal(ranged.image(array_image(floats, ranged, "x")), wanted)


def test_black_and_white() -> None:
    found = np.asarray(array_image(np.array([[True, False]]), GREY, "x"))
    assert found.tolist() == [[255, 0]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((9, 7)), "image 3 is an array of shape (9, 7) and type float64: float64 has no range of its own"),
        (np.zeros((9, 7), int), "type int64: int64 has no range of its own"),
        (np.full((9, 7), 4095, np.uint16), "16 bits, but nothing in it is above 4095"),
        (np.zeros((9, 7), complex), "complex128 is no type of pixels"),
        (np.zeros((9, 7, 4), np.uint16), "give transparency as uint8, or leave it out"),
        (np.zeros((9, 7, 5), np.uint8), "image 3 is an array of shape (9, 7, 5) and type uint8; give uint8 arrays"),
        (np.zeros((0, 4), np.uint8), "image 3 is an array of shape (0, 4)"),
    ],
)
def test_pixels_without_a_meaning_are_refused(array: np.ndarray[Any, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        array_image(array, GREY, "image 3")
