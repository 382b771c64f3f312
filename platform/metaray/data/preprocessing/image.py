"""Images."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from metaray.data.pictures import ValueRange, decode_image, to_mode
from metaray.data.preprocessing.preprocessing import Preprocessing, RawInputs, check_normalisation
from metaray.data.preprocessing.raw_images import raw_images
from metaray.data.ragged import Compact
from metaray.errors import InputError
from metaray.tasks.column import Column

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

MOST_LONG = 100
"""Largest ratio of the sides of an image whose middle is cut out."""


class ImagePreprocessing(Preprocessing):
    """Preprocessing of images, which are kept as uint8; stored with class stores and learners.

    Attributes:
        height: Height of an example, in pixels.
        width: Width of an example, in pixels.
        mode: "L" (one grey channel) or "RGB" (three channels).
        invert: Whether to store 255 - pixel, so that dark ink on light paper becomes high numbers.
        resample: Pillow's resampling filter for resizing. It is applied to the image in `mode`, before any inversion;
            an image of the right size is not resized.
        mean: Mean of each channel, subtracted on the device from pixels scaled to [0, 1].
        std: Standard deviation of each channel, by which the difference is divided.
        shortest: Length in pixels to which the shorter side is resized before height x width pixels are cut out of the
            middle. None resizes the image to height x width directly, whatever its shape.
        value_range: Numbers for black and white in images of floats or of more than 8 bits a channel; numbers outside
            count as black or white. None takes 0 and 65535 for 16 bits, and refuses images without a known range.
    """

    kind: ClassVar[str] = "image"
    dtype: ClassVar[str] = "uint8"
    input_word: ClassVar[str] = "image"
    compared: ClassVar[str | None] = "pixels"
    takes_folders: ClassVar[bool] = True

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    mode: Literal["L", "RGB"] = "L"
    invert: bool = False
    resample: Resample = "lanczos"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    shortest: int | None = Field(default=None, gt=0)
    value_range: ValueRange | None = None

    @model_validator(mode="after")
    def _one_number_a_channel(self) -> ImagePreprocessing:
        check_normalisation(self.mean, self.std, self.channels, "channels")
        if self.value_range is not None and self.value_range[0] >= self.value_range[1]:
            raise ValueError("value_range goes from {:g} to {:g}; the first must be lower".format(*self.value_range))
        if self.shortest is not None and self.shortest < max(self.height, self.width):
            raise ValueError(
                f"of a shorter side of {self.shortest} pixels {self.height}x{self.width} can't be cut out: give "
                "shortest as much at least, or leave it out"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_unused(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Stores and learners of before there were such fields keep their text, and so their fingerprints.
        later = ("value_range", "shortest")
        return {name: value for name, value in dump(self).items() if name not in later or value is not None}

    @property
    def channels(self) -> int:
        """Number of channels: 1 for grey, 3 for colour."""
        return 1 if self.mode == "L" else 3

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one example: (channels, height, width)."""
        return (self.channels, self.height, self.width)

    def read(self, x: RawInputs, *, count: int | None = None) -> Compact:
        """Read images of any size as uint8 [n, channels, height, width].

        They can be paths, files, bytes of files, PIL images or arrays of pixels.
        """
        found = [self.image(image, where) for image, where in raw_images(self, x, count)]
        if not found:
            raise InputError("no images given")
        return np.stack(found)

    def probe(self, count: int, seed: int = 0) -> Compact:
        """Images of random pixels."""
        return np.random.default_rng(seed).integers(0, 256, (count, *self.feature_shape), dtype=np.uint8)

    @property
    def columns(self) -> tuple[Column, ...]:
        """One column, with the bytes of an image file."""
        return (Column("image", "binary"),)

    def from_cells(self, rows: Sequence[Sequence[Any]], names: Sequence[str], where: Callable[[int], str]) -> RawInputs:
        """Images of 8 bits a channel, from the bytes of image files, or their base64 text as in REST scoring."""
        return [self._decoded(row[0], where(i)) for i, row in enumerate(rows)]

    def example_cells(self, share: float) -> list[Any]:
        """The bytes of a PNG file of one grey, from black (0) to white (1)."""
        file = io.BytesIO()
        Image.new("L", (self.width, self.height), round(255 * share)).save(file, format="PNG")
        return [file.getvalue()]

    def _decoded(self, cell: object, where: str) -> Image.Image:
        if isinstance(cell, str):
            try:
                cell = base64.b64decode("".join(cell.split()), validate=True)
            except ValueError as error:
                raise InputError(f"{where}: the image is text, but not base64: {error}") from error
        if not isinstance(cell, bytes | bytearray | memoryview):
            raise InputError(f"{where}: the image is a {type(cell).__name__}, not the bytes of an image file")
        image = decode_image(bytes(cell), f"{where}: the image can't be read")
        return to_mode(image, self.mode, self.value_range, f"{where}: the image")

    def image(self, image: Image.Image, where: str = "the image") -> NDArray[np.uint8]:
        """Convert one raw image, of any size and mode, to uint8 [channels, height, width].

        Transparent pixels count as white, and the orientation in the camera's metadata is applied, as viewers do.

        Args:
            image: The image.
            where: Name of the image for messages.

        Raises:
            InputError: If the image is damaged or holds numbers without a known range; the message names it.
        """
        image = to_mode(image, self.mode, self.value_range, where)
        if image.size != (self.width, self.height):
            image = self._resized(image, where)
        pixels = np.asarray(image, dtype=np.uint8)
        if self.invert:
            pixels = 255 - pixels
        return pixels[None] if self.mode == "L" else np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _resized(self, image: Image.Image, where: str) -> Image.Image:
        """Any image in `mode` as one of the right size."""
        size, by = (self.width, self.height), RESAMPLING[self.resample]
        if self.shortest is None:
            return image.resize(size, by)
        least = min(image.size)
        if max(image.size) > MOST_LONG * least:
            raise InputError(f"{where} is {image.width}x{image.height}: too long to cut its middle out")
        width, height = (self.shortest * side // least for side in image.size)
        left, top = (width - self.width) // 2, (height - self.height) // 2
        return image.resize((width, height), by).crop((left, top, left + self.width, top + self.height))

    def picture(self, pixels: NDArray[np.uint8]) -> Image.Image:
        """Convert an example to an image: the inverse of `image`, apart from resizing.

        `image(picture(pixels))` returns the same pixels.
        """
        if self.invert:
            pixels = 255 - pixels
        return Image.fromarray(pixels[0] if self.mode == "L" else np.ascontiguousarray(pixels.transpose(1, 2, 0)))

    def normalize(self, x: Tensor) -> Tensor:
        """Normalise uint8 [..., channels, height, width] to float32 of the same shape, on the tensor's device."""
        return self.standardized(self.scaled(x))

    def scaled(self, x: Tensor) -> Tensor:
        """Scale uint8 pixels of any shape to float32 in 0 .. 1, in new memory."""
        # Sampler processes need no torch, and start a second sooner without it.
        import torch

        return x.to(torch.float32).div_(255.0)

    def standardized(self, scaled: Tensor) -> Tensor:
        """Subtract the mean from pixels in 0 .. 1 [..., channels, height, width] and divide by `std`, in place."""
        if set(self.mean) == {0.0} and set(self.std) == {1.0}:
            return scaled
        import torch

        mean = torch.tensor(self.mean, device=scaled.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=scaled.device).view(-1, 1, 1)
        return scaled.sub_(mean).div_(std)
