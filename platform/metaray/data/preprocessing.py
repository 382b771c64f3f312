"""From a raw input to the compact array a source holds, and from that to the numbers a model sees."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from metaray.config import Config
from metaray.data.pictures import ValueRange, to_mode

if TYPE_CHECKING:
    from torch import Tensor

Resample = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
RESAMPLING: dict[Resample, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class Preprocessing(Config):
    """How raw inputs become what a model sees. Stored with every learner.

    Attributes:
        kind: its name in files.
        input_word: what one raw input is called.
        compared: what the nearest neighbour compares, in words.
    """

    kind: ClassVar[str]
    input_word: ClassVar[str] = "input"
    compared: ClassVar[str] = "inputs"

    @property
    @abstractmethod
    def feature_shape(self) -> tuple[int, ...]:
        """The shape of one input."""

    @abstractmethod
    def normalize(self, x: Tensor) -> Tensor:
        """Compact [..., *feature] to float32 of the same shape, on the tensor's device."""


class VectorPreprocessing(Preprocessing):
    """Inputs that are vectors of numbers already: float32, each feature shifted and scaled.

    Attributes:
        size: of a vector.
        mean: subtracted; one number, or one a feature.
        std: divided by, likewise.
    """

    kind: ClassVar[str] = "vector"

    size: int = Field(gt=0)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @model_validator(mode="after")
    def _one_number_a_feature(self) -> VectorPreprocessing:
        _check_normalisation(self.mean, self.std, self.size, "features")
        return self

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """(size,)."""
        return (self.size,)

    def normalize(self, x: Tensor) -> Tensor:
        """[..., size] to float32 of the same shape."""
        import torch

        mean, std = (torch.tensor(values, device=x.device) for values in (self.mean, self.std))
        return (x.to(torch.float32) - mean) / std


class ImagePreprocessing(Preprocessing):
    """How raw images become examples. Stored with every class store too.

    Attributes:
        height: of the result, pixels.
        width: of the result, pixels.
        mode: "L" (one grey channel) or "RGB" (three).
        invert: store 255 - pixel, so that dark ink on light paper becomes high numbers.
        resample: Pillow's filter of the resize. It works on the image in `mode`, before any inversion; an image that
            has the size already is not resized.
        mean: subtracted, per channel, from pixels scaled to [0, 1]; on the device.
        std: divided by, per channel; on the device.
        value_range: the numbers that mean black and white in images of more than 8 bits a channel, or of floats; what
            lies outside counts as black or white. None takes 16 bits by 65535, and refuses what has no range.
    """

    kind: ClassVar[str] = "image"
    input_word: ClassVar[str] = "image"
    compared: ClassVar[str] = "pixels"

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    mode: Literal["L", "RGB"] = "L"
    invert: bool = False
    resample: Resample = "lanczos"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    value_range: ValueRange | None = None

    @model_validator(mode="after")
    def _one_number_a_channel(self) -> ImagePreprocessing:
        _check_normalisation(self.mean, self.std, self.channels, "channels")
        if self.value_range is not None and self.value_range[0] >= self.value_range[1]:
            raise ValueError("value_range goes from {:g} to {:g}; the first must be lower".format(*self.value_range))
        return self

    @model_serializer(mode="wrap")
    def _without_an_unused_range(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Stores and learners of before there were ranges keep their text, and so their fingerprints.
        return {name: value for name, value in dump(self).items() if name != "value_range" or value is not None}

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return 1 if self.mode == "L" else 3

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """(channels, height, width)."""
        return (self.channels, self.height, self.width)

    def image(self, image: Image.Image, where: str = "the image") -> NDArray[np.uint8]:
        """One raw image, of any size and mode, as uint8 [channels, height, width].

        Transparent pixels count as white paper, and the orientation that a camera noted is applied, as viewers do.

        Raises:
            InputError: naming the image `where`, if it is damaged or holds numbers without a known range.
        """
        image = to_mode(image, self.mode, self.value_range, where)
        if image.size != (self.width, self.height):
            image = image.resize((self.width, self.height), RESAMPLING[self.resample])
        pixels = np.asarray(image, dtype=np.uint8)
        if self.invert:
            pixels = 255 - pixels
        return pixels[None] if self.mode == "L" else np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def picture(self, pixels: NDArray[np.uint8]) -> Image.Image:
        """The inverse of `image`, resizing aside: `image(picture(pixels))` gives the same pixels."""
        if self.invert:
            pixels = 255 - pixels
        return Image.fromarray(pixels[0] if self.mode == "L" else np.ascontiguousarray(pixels.transpose(1, 2, 0)))

    def normalize(self, x: Tensor) -> Tensor:
        """uint8 [..., channels, height, width] to float32 of the same shape, on the tensor's device."""
        return self.standardized(self.scaled(x))

    def scaled(self, x: Tensor) -> Tensor:
        """uint8 of any shape to float32 in 0 .. 1, in memory of its own."""
        # Sampler processes need no torch, and start a second sooner without it.
        import torch

        return x.to(torch.float32).div_(255.0)

    def standardized(self, scaled: Tensor) -> Tensor:
        """Pixels in 0 .. 1 [..., channels, height, width] less the mean, over the standard deviation; in place."""
        if set(self.mean) == {0.0} and set(self.std) == {1.0}:
            return scaled
        import torch

        mean = torch.tensor(self.mean, device=scaled.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=scaled.device).view(-1, 1, 1)
        return scaled.sub_(mean).div_(std)


PREPROCESSINGS: dict[str, type[Preprocessing]] = {"image": ImagePreprocessing, "vector": VectorPreprocessing}


def _check_normalisation(mean: tuple[float, ...], std: tuple[float, ...], size: int, what: str) -> None:
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, size):
            raise ValueError(f"{name} has {len(values)} numbers for {size} {what}")
    if min(std) <= 0:
        raise ValueError(f"std must be positive, not {min(std)}")
