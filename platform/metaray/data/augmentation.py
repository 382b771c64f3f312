"""Altered copies of images: pure, vectorised over images [n, channels, height, width] uint8, with numpy alone.

What comes in from outside an image is 0, as is what is erased: the paper, where ink is high. Only sums, products,
quotients and roundings of IEEE numbers are used, whose results no library or processor is free to choose.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaray.data.draws import Draws

Images = NDArray[Any]
Numbers = NDArray[np.float64]


def spread(draws: Draws, count: int, most: float) -> Numbers:
    """[count] uniform in [-most, most)."""
    return (2.0 * draws.uniform(count) - 1.0) * most


def shifted(images: Images, most: int, draws: Draws) -> Images:
    """Images [n, ...], each moved by whole pixels, uniform in -most .. most along either axis."""
    count, channels, height, width = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (most, most), (most, most)))
    corner = (draws.uniform(2 * count) * (2 * most + 1)).astype(np.int64).reshape(2, count, 1)
    rows, columns = corner[0] + np.arange(height), corner[1] + np.arange(width)
    moved: Images = padded[_each(count, 0), _each(channels, 1), rows[:, None, :, None], columns[:, None, None, :]]
    return moved


def turned(images: Images, most_degrees: float, most_scaling: float, draws: Draws) -> Images:
    """Each image turned and scaled about its centre, interpolated bilinearly.

    The scale is uniform in 1 - most_scaling .. 1 + most_scaling. The turn is that whose half has a tangent t uniform
    in +-(most_degrees in radians) / 2, so that cos = (1 - t^2) / (1 + t^2) and sin = 2 t / (1 + t^2) need no
    trigonometric function: nearly uniform, and at most most_degrees (42.9 for 45, 14.9 for 15).
    """
    count, channels, height, width = images.shape
    t = spread(draws, count, np.pi * most_degrees / 360.0).reshape(-1, 1, 1)
    size = (1.0 + spread(draws, count, most_scaling).reshape(-1, 1, 1)) * (1.0 + t * t)
    along, across = (1.0 - t * t) / size, 2.0 * t / size
    y, x = (np.arange(side) - (side - 1) / 2.0 for side in (height, width))
    y, x = y[:, None], x[None, :]
    # Where each pixel of the result comes from, one further since a margin of zeros follows.
    from_y = np.clip(along * y - across * x + (height - 1) / 2.0, -1.0, height) + 1.0
    from_x = np.clip(across * y + along * x + (width - 1) / 2.0, -1.0, width) + 1.0
    padded = np.pad(images, ((0, 0), (0, 0), (1, 2), (1, 2))).astype(np.float64)
    top, left = from_y.astype(np.int64), from_x.astype(np.int64)
    down, right = (from_y - top)[:, None], (from_x - left)[:, None]

    def at(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Numbers:
        found: Numbers = padded[_each(count, 0), _each(channels, 1), rows[:, None], columns[:, None]]
        return found

    upper = (1.0 - right) * at(top, left) + right * at(top, left + 1)
    lower = (1.0 - right) * at(top + 1, left) + right * at(top + 1, left + 1)
    result: Images = np.rint((1.0 - down) * upper + down * lower).astype(images.dtype)
    return result


def flipped(images: Images, draws: Draws) -> Images:
    """Images, each mirrored left to right with probability one half."""
    mirrored = draws.uniform(len(images)) < 0.5
    return np.where(mirrored[:, None, None, None], images[..., ::-1], images)


def brightened(images: Images, most: float, draws: Draws) -> Images:
    """Images, each multiplied by a factor that is uniform in 1 - most .. 1 + most."""
    factors = 1.0 + spread(draws, len(images), most)
    return np.rint(np.clip(images * factors[:, None, None, None], 0.0, 255.0)).astype(images.dtype)


def erased(images: Images, share: float, draws: Draws) -> Images:
    """Images in which each pixel, in all channels, is set to zero with probability `share`."""
    count, _, height, width = images.shape
    kept = draws.uniform(count * height * width).reshape(count, 1, height, width) >= share
    return images * kept


def _each(count: int, axis: int) -> NDArray[np.int64]:
    """0 .. count-1 along one of four axes."""
    return np.arange(count).reshape([-1 if axis == i else 1 for i in range(4)])
