from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from metaray.data.preprocessing import RESAMPLING, ImagePreprocessing, Resample


def test_grey_inverted_image() -> None:
    pixels = ImagePreprocessing(height=4, width=6, invert=True).image(Image.new("L", (10, 8), 255))
    assert pixels.shape == (1, 4, 6) and pixels.dtype == np.uint8 and not pixels.any()


def test_colour_channels_come_first() -> None:
    pixels = ImagePreprocessing(height=2, width=3, mode="RGB").image(Image.new("RGB", (3, 2), (1, 2, 3)))
    assert pixels.shape == (3, 2, 3) and pixels.flags.c_contiguous
    assert pixels[:, 0, 0].tolist() == [1, 2, 3]


def test_transparent_pixels_are_white_paper() -> None:
    assert (ImagePreprocessing(height=2, width=2).image(Image.new("RGBA", (2, 2), (0, 0, 0, 0))) == 255).all()


def test_normalize() -> None:
    x = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 2)
    normalized = ImagePreprocessing(height=1, width=2, mean=(0.5,), std=(0.25,)).normalize(x)
    assert normalized.flatten().tolist() == [-2.0, 2.0]


def test_one_number_a_channel() -> None:
    with pytest.raises(ValueError, match="mean has 2 numbers for 3 channels"):
        ImagePreprocessing(height=1, width=1, mode="RGB", mean=(0.0, 1.0))


def test_a_range_is_kept_only_where_there_is_one() -> None:
    plain = ImagePreprocessing(height=2, width=2)
    assert "value_range" not in plain.model_dump() and "value_range" not in plain.model_dump_json()
    ranged = ImagePreprocessing(height=2, width=2, value_range=(0, 4095))
    assert ImagePreprocessing.model_validate_json(ranged.model_dump_json()) == ranged != plain
    with pytest.raises(ValueError, match="value_range goes from 3 to 3; the first must be lower"):
        ImagePreprocessing(height=2, width=2, value_range=(3, 3))


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    deep = Image.fromarray(np.array([[0, 32768], [65535, 256]], dtype=np.uint16))
    assert ImagePreprocessing(height=2, width=2).image(deep)[0].tolist() == [[0, 128], [255, 1]]


def test_picture_is_the_inverse_of_image() -> None:
    for mode, channels in (("L", 1), ("RGB", 3)):
        preprocessing = ImagePreprocessing(height=5, width=7, mode=mode, invert=True)
        pixels = np.random.default_rng(0).integers(0, 256, (channels, 5, 7), dtype=np.uint8)
        assert (preprocessing.image(preprocessing.picture(pixels)) == pixels).all()


def test_filters_are_pillows_of_the_same_names() -> None:
    assert list(RESAMPLING) == list(get_args(Resample))
    assert {name: by.name.lower() for name, by in RESAMPLING.items()} == {name: name for name in RESAMPLING}
