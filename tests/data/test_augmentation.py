"""Altered copies of images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaray.data.augmentation import brightened, erased, flipped, shifted, turned
from metaray.data.draws import Draws


def draws(seed: int = 0) -> Draws:
    return Draws(seed, "meta-train", 0)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, shape, dtype=np.uint8)


@given(st.integers(0, 2**32), st.integers(0, 6), st.sampled_from([(1, 7, 7), (3, 5, 8)]))
def test_a_shift_moves_and_fills_with_zero(seed: int, most: int, shape: tuple[int, ...]) -> None:
    images = noise(4, *shape)
    moved = shifted(images, most, draws(seed))
    assert moved.shape == images.shape and moved.dtype == np.uint8
    for before, after in zip(images, moved, strict=True):
        fits = []
        for dy in range(-most, most + 1):
            for dx in range(-most, most + 1):
                expected = np.zeros_like(before)
                height, width = shape[1:]
                ys, xs = slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0))
                from_ys, from_xs = slice(max(-dy, 0), height + min(-dy, 0)), slice(max(-dx, 0), width + min(-dx, 0))
                if abs(dy) < height and abs(dx) < width:
                    expected[:, ys, xs] = before[:, from_ys, from_xs]
                fits.append(np.array_equal(after, expected))
        assert any(fits)


def test_every_shift_is_as_likely() -> None:
    images = np.zeros((5000, 1, 5, 5), np.uint8)
    images[:, 0, 2, 2] = 1
    times = shifted(images, 2, draws()).sum(axis=(0, 1))
    assert times.sum() == 5000 and times.min() > 140 and times.max() < 260


def test_no_turn_and_no_scaling_change_nothing() -> None:
    images = noise(3, 2, 6, 9)
    assert np.array_equal(turned(images, 0.0, 0.0, draws()), images)


def test_turns_are_about_the_centre_and_within_bounds() -> None:
    size, reach = 41, 15
    images = np.zeros((300, 1, size, size), np.uint8)
    images[:, 0, 20, 20 - reach : 20 + reach + 1] = 255
    pixels = turned(images, 30.0, 0.0, draws())[:, 0].astype(float)
    y, x = np.mgrid[:size, :size] - 20.0
    total = pixels.sum(axis=(1, 2))
    assert np.abs((pixels * y).sum(axis=(1, 2)) / total).max() < 0.1
    angles = np.degrees(0.5 * np.arctan2(2 * (pixels * x * y).sum((1, 2)), (pixels * (x * x - y * y)).sum((1, 2))))
    assert 27 < np.abs(angles).max() < 30.5 and abs(angles.mean()) < 3
    # Uniform: a standard deviation of 29.3 / sqrt(3).
    assert abs(angles.std() - 29.3 / 3**0.5) < 1.5


def test_scales_are_within_bounds() -> None:
    images = np.zeros((300, 1, 41, 41), np.uint8)
    images[:, 0, 11:30, 11:30] = 255
    sides = np.sqrt(turned(images, 0.0, 0.25, draws()).sum(axis=(1, 2, 3)) / 255.0) / 19
    assert 0.74 < sides.min() < 0.78 and 1.22 < sides.max() < 1.26


def test_flips_are_whole_images() -> None:
    images = noise(200, 3, 2, 4)
    after = flipped(images, draws())
    mirrored = (after == images[..., ::-1]).all(axis=(1, 2, 3))
    assert ((after == images).all(axis=(1, 2, 3)) ^ mirrored).all() and 70 < mirrored.sum() < 130


def test_brightness_is_one_factor_an_image() -> None:
    images = np.full((200, 3, 2, 2), 200, np.uint8)
    after = brightened(images, 0.5, draws())
    assert after.dtype == np.uint8 and (after == after[:, :1, :1, :1]).all()
    assert 100 <= after.min() < 110 and after.max() == 255


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_erased_pixels_go_in_all_channels(share: float) -> None:
    after = erased(noise(50, 3, 20, 20), share, draws())
    gone = after == 0
    assert after.dtype == np.uint8 and (gone == gone[:, :1]).all()
    assert abs(gone.mean() - share) < 0.02
