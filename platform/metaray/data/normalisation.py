"""Mean and standard deviation of the channels of a store's meta-train images, as `ClassStore` takes them."""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaray.data.ragged import Ragged
from metaray.data.store_file import StoreFile

LEVELS, WHITE = 256, 255
DIGITS = 4


class Normalisation(NamedTuple):
    """Mean and standard deviation of images whose pixels are scaled to 0 .. 1, one number for each channel.

    Attributes:
        mean: Mean of all pixels.
        std: Standard deviation of all pixels.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def settings(self) -> str:
        """The two as options: `--set source.mean=[0.5,0.4,0.4] --set source.std=[0.2,0.2,0.3]`."""
        written = (",".join(f"{value:.{DIGITS}f}" for value in values) for values in self)
        return " ".join(f"--set source.{name}=[{text}]" for name, text in zip(self._fields, written, strict=True))


def measured(file: StoreFile) -> dict[str, Normalisation]:
    """Mean and standard deviation of the meta-train images of each split scheme.

    Schemes whose images have a single brightness are left out.

    The sums are of whole numbers and exact, so that results are the same on all machines.

    Args:
        file: Store of uint8 images; other stores have no such numbers.
    """
    images = file.examples
    if isinstance(images, Ragged) or images.dtype != np.uint8 or images.ndim != 4:
        return {}
    wanted = {ids for scheme in file.meta.schemes.values() for ids in scheme.get("meta-train", ())}
    histograms = {ids: _histograms(images[file.offsets[ids] : file.offsets[ids + 1]]) for ids in sorted(wanted)}
    found = {name: _of(histograms, scheme.get("meta-train", ())) for name, scheme in file.meta.schemes.items()}
    return {name: one for name, one in found.items() if one is not None}


def _histograms(images: NDArray[Any]) -> NDArray[np.int64]:
    """[channels, 256]: how many pixels have each value."""
    planes = (images[:, channel].reshape(-1) for channel in range(images.shape[1]))
    return np.stack([np.bincount(plane, minlength=LEVELS) for plane in planes])


def _of(histograms: Mapping[int, NDArray[np.int64]], ids: Sequence[int]) -> Normalisation | None:
    if not ids:
        return None
    levels = np.arange(LEVELS)
    pixels = sum((histograms[one] for one in ids), np.zeros(LEVELS, dtype=np.int64))
    count, total, squares = (row.tolist() for row in (pixels.sum(1), pixels @ levels, pixels @ levels**2))
    # The numerator of the variance is a whole number, of any size in Python.
    spread = [n * s - t * t for n, t, s in zip(count, total, squares, strict=True)]
    mean = tuple(round(t / n / WHITE, DIGITS) for n, t in zip(count, total, strict=True))
    std = tuple(round(sqrt(v) / n / WHITE, DIGITS) for n, v in zip(count, spread, strict=True))
    return Normalisation(mean, std) if min(std) > 0 else None
