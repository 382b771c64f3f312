"""Augmentation of the images of an episode, on the device, drawn from the episode's own seed."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from metaray.config import Config
from metaray.data.draws import Draws
from metaray.data.preprocessing import ImagePreprocessing, Preprocessing
from metaray.errors import InputError

SideName = Literal["support", "query"]
SIDES: tuple[SideName, ...] = ("support", "query")
LAST_INDEX = 2**64 - 1
"""Index of the episodes whose random numbers the sides use: the last ones of a sequence, which no run reaches."""

NUMBERS = 9
"""Number of random numbers drawn for each image.

All are drawn, used or not, so that enabling one augmentation leaves the others unchanged.
"""
ORDERS = np.array([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
GREY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in the brightness of a pixel (ITU-R BT.601)."""


class Augmentation(Config):
    """Random augmentation of images in meta-training, independent for each image; evaluation uses none.

    Augmentation is a pure function of the episode's seed: neither workers nor chunks change what is drawn. The order is
    that of Lee et al. (MetaOptNet, CVPR 2019) and most of the field: crop, colours and flip of pixels in 0 .. 1, then
    normalisation, then cutout, whose zeros are the mean of the data there. Pixels are not rounded to 8 bits in between,
    as they are by torchvision's transforms of images.

    Attributes:
        on: Side of the episode whose images are augmented: "support", "query" or "both".
        crop_padding: Margin of black pixels (zeros, as stored) added before an image of the original size is cut out at
            a uniformly random place.
        flip: Whether to mirror half of the images left to right; not for letters.
        brightness: Largest distance from 1 of the factor on an image's pixels.
        contrast: Largest distance from 1 of the factor on the pixels' differences to the image's mean grey.
        saturation: Largest distance from 1 of the factor on a pixel's differences to its own grey. The order of
            brightness, contrast and saturation is random, too.
        cutout: Side in pixels of a square that is set to zero, with its centre uniform over the image (DeVries and
            Taylor, arXiv:1708.04552); at the border a part of the square lies outside.
    """

    on: Literal["support", "query", "both"] = "both"
    crop_padding: int = Field(default=0, ge=0)
    flip: bool = False
    brightness: float = Field(default=0.0, ge=0, le=1)
    contrast: float = Field(default=0.0, ge=0, le=1)
    saturation: float = Field(default=0.0, ge=0, le=1)
    cutout: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _alters_something(self) -> Self:
        names = [name for name in type(self).model_fields if name != "on"]
        if not any(getattr(self, name) for name in names):
            raise ValueError(f"augmentation alters nothing: set one of {', '.join(names)}, or leave it out (null)")
        return self

    @property
    def jitter(self) -> tuple[float, float, float]:
        """The strengths of brightness, contrast and saturation."""
        return self.brightness, self.contrast, self.saturation

    def check(self, preprocessing: Preprocessing) -> ImagePreprocessing:
        """Check that inputs are images which can be augmented like this, and return their preprocessing.

        Raises:
            InputError: If they are not; the message names what does not go together.
        """
        if not isinstance(preprocessing, ImagePreprocessing):
            raise InputError(
                f"augmentation alters images, but the source yields inputs of another kind ({preprocessing.kind}): "
                "leave it out (augmentation=null)"
            )
        height, width = preprocessing.height, preprocessing.width
        for name in ("crop_padding", "cutout"):
            if getattr(self, name) >= min(height, width):
                raise InputError(
                    f"augmentation.{name}={getattr(self, name)} would leave nothing of some images of {height}x{width} "
                    f"pixels; at most {min(height, width) - 1}"
                )
        if self.saturation and preprocessing.channels == 1:
            raise InputError("augmentation.saturation: images in grey (mode L) have none; set it to 0")
        return preprocessing

    def covers(self, side: SideName) -> bool:
        """Whether the images of that side of an episode are augmented."""
        return self.on in (side, "both")


def normalized(
    preprocessing: Preprocessing,
    x: Any,
    augmentation: Augmentation | None = None,
    side: SideName = "support",
    seeds: Sequence[int] = (),
) -> Any:
    """Normalise the compact inputs of one side of an episode, and augment them if the augmentation covers that side.

    Args:
        preprocessing: Preprocessing of the source.
        x: Compact inputs on the device: [n, *feature] for one episode, [B, n, *feature] for a chunk; a dict if examples
            are ragged.
        augmentation: Augmentation to apply; None for none.
        side: Side of the episode, "support" or "query".
        seeds: Seeds of the B episodes, or of the single one.

    Raises:
        InputError: If augmentation is asked for, but the inputs are not images.
    """
    if augmentation is None or not augmentation.covers(side):
        return preprocessing.normalize(x)
    images = augmentation.check(preprocessing)
    drawn = _draw(augmentation, images, side, seeds, count=x.shape[-4])
    drawn = _Drawn(*(tensor.to(x.device, non_blocking=True) for tensor in drawn))
    flat = images.scaled(x).flatten(0, -4)
    if augmentation.crop_padding or augmentation.flip:
        flat = _cut(flat, drawn.rows, drawn.columns, augmentation.crop_padding)
    if any(augmentation.jitter):
        flat = _jittered(flat, drawn.order, drawn.factors)
    flat = images.standardized(flat)
    if augmentation.cutout:
        flat = flat * drawn.kept
    return flat.view(x.shape)


class _Drawn(NamedTuple):
    """What is done to each of m images.

    Attributes:
        rows: [m, height] int64, of the padded image; where the rows of the result come from.
        columns: [m, width] int64, mirrored where the image is.
        order: [3, m] int64, which of brightness, contrast and saturation comes first, second and third.
        factors: [3, m, 1, 1, 1] float32, in that order.
        kept: [m, 1, height, width] float32, 0 in the cutout and 1 elsewhere.
    """

    rows: Tensor
    columns: Tensor
    order: Tensor
    factors: Tensor
    kept: Tensor


def _draw(
    augmentation: Augmentation, images: ImagePreprocessing, side: SideName, seeds: Sequence[int], *, count: int
) -> _Drawn:
    """The random numbers for each of `count` images of each episode."""
    index = LAST_INDEX - SIDES.index(side)
    numbers = [Draws(seed, "meta-train", index).uniform(NUMBERS * count) for seed in seeds]
    drawn = np.concatenate(numbers).reshape(-1, NUMBERS).T
    height, width = images.height, images.width
    places = 2 * augmentation.crop_padding + 1
    rows = (drawn[0] * places).astype(np.int64)[:, None] + np.arange(height)
    columns = (drawn[1] * places).astype(np.int64)[:, None] + np.arange(width)
    if augmentation.flip:
        columns = np.where(drawn[2][:, None] < 0.5, columns[:, ::-1], columns)
    order = ORDERS[(drawn[6] * len(ORDERS)).astype(np.int64)].T
    factors = 1.0 + (2.0 * drawn[3:6] - 1.0) * np.array(augmentation.jitter)[:, None]
    factors = np.take_along_axis(factors, order, axis=0)[:, :, None, None, None]
    kept = ~(
        _within(drawn[7], height, augmentation.cutout)[:, None, :, None]
        & _within(drawn[8], width, augmentation.cutout)[:, None, None, :]
    )
    arrays = (rows, columns, order, factors.astype(np.float32), kept.astype(np.float32))
    return _Drawn(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))


def _within(drawn: NDArray[np.float64], side: int, length: int) -> NDArray[np.bool_]:
    """[m, side] which places lie within `length` around a centre that is uniform over them."""
    first = (drawn * side).astype(np.int64)[:, None] - length // 2
    places = np.arange(side)
    inside: NDArray[np.bool_] = (places >= first) & (places < first + length)
    return inside


def _cut(x: Tensor, rows: Tensor, columns: Tensor, margin: int) -> Tensor:
    """The pixels at the given rows and columns of images with a margin of zeros."""
    padded = torch.nn.functional.pad(x, (margin, margin, margin, margin))
    index = rows[:, :, None] * padded.shape[-1] + columns[:, None, :]
    index = index.flatten(1)[:, None].expand(-1, x.shape[1], -1)
    return padded.flatten(2).gather(2, index).view(x.shape)


def _jittered(x: Tensor, order: Tensor, factors: Tensor) -> Tensor:
    """Three blends with black, the image's mean grey, and each pixel's grey, in an order of each image's own."""
    for which, factor in zip(order, factors, strict=True):
        grey = x if x.shape[1] == 1 else (x * x.new_tensor(GREY).view(-1, 1, 1)).sum(dim=1, keepdim=True)
        other = torch.where(_is(which, 1), grey.mean(dim=(2, 3), keepdim=True), grey)
        other = other.masked_fill(_is(which, 0), 0.0)
        x = torch.lerp(other, x, factor).clamp_(0.0, 1.0)
    return x


def _is(which: Tensor, value: int) -> Tensor:
    return (which == value).view(-1, 1, 1, 1)
