"""Image files and Pillow's images as pixels of 8 bits, by stated rules. What has no rule is refused by name.

8 bits a channel stay as they are. 16 bits are scaled by 65535. Where the numbers that mean black and white are given
(a value range), 16 bits and numbers of any other type are scaled by those, and what lies outside counts as black or
white. Without them wider integers and floats are refused, since no file says what their white is; so are 16 bits that
hold nothing above 4095: taken by 65535, a scan of 12 bits would be nearly black.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError

from metaray.data.image_files import open_image
from metaray.errors import InputError

ValueRange = tuple[float, float]

FULL_16_BITS: ValueRange = (0.0, 65535.0)
HIGHEST_OF_12_BITS = 4095
# Of these the first frame is the picture: others hold it smaller, from another angle, or in layers.
_FIRST_IS_THE_PICTURE = ("MPO", "PSD")
_REDUCED_PAGE = 254  # TIFF's tag NewSubfileType; its lowest bit marks a smaller copy of another page
# In `Image.info`: Pillow has cut 16 bits a channel down to their upper 8.
_UPPER_BYTE = "metaray: upper byte of 16 bits"


class NoImage(InputError):
    """A file of which Pillow knows no format."""


def decode_image(raw: bytes, where: str) -> Image.Image:
    """Decode an image file.

    Raises:
        NoImage: If Pillow knows no format of it.
        InputError: If the file is not an image, a damaged one, or several; the message names the file `where`.
    """
    try:
        with open_image(io.BytesIO(raw)) as image:
            if _has_more(image):
                frames = getattr(image, "n_frames", 1)
                raise InputError(f"{where}: holds {frames} frames ({image.format}); give one image a file")
            upper_byte = _upper_byte(image)
            image.load()
            if image.format == "PPM" and image.mode == "I":
                # The file says what its white is, and Pillow has scaled by it already.
                return Image.fromarray(scaled(np.asarray(image), FULL_16_BITS, where))
            copy = image.copy()
            if upper_byte:
                copy.info[_UPPER_BYTE] = True
            return copy
    except InputError:
        raise
    except UnidentifiedImageError:
        raise NoImage(f"{where}: not an image that Pillow can read") from None
    except Exception as error:  # Pillow's readers raise almost anything on damaged files
        raise InputError(f"{where}: a damaged image: {_reason(error)}") from error


def to_mode(image: Image.Image, mode: Literal["L", "RGB"], value_range: ValueRange | None, where: str) -> Image.Image:
    """Convert an image to grey or colour with 8 bits a channel.

    Transparent pixels count as white, and the orientation in the camera's metadata is applied, as viewers do. Colour
    profiles are ignored.

    Raises:
        InputError: If the image has numbers without a known range, is damaged, or has an unknown mode; the message
            names it by `where`.
    """
    with _named(image, where):
        _check_upper_byte(image, value_range, where)
        image = ImageOps.exif_transpose(image)
        if _holds_numbers(image):
            image = _eight_bits(image, value_range, where)
        if image.mode in ("LAB", "La"):  # which Pillow turns to no other mode than these
            image = image.convert("RGB" if image.mode == "LAB" else "LA")
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        return image.convert(mode)


def scaled(values: NDArray[Any], value_range: ValueRange | None, where: str) -> NDArray[np.uint8]:
    """Scale pixels of any type to uint8 of the same shape.

    Raises:
        InputError: If no range is known for such numbers, or one is not finite; the message names the image `where`.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "iuf":
        raise InputError(f"{where}: {values.dtype} is no type of pixels; give uint8")
    if value_range is None:
        if values.dtype.kind != "u" or values.dtype.itemsize != 2:
            raise InputError(
                f"{where}: {values.dtype} has no range of its own, so black and white are not known; "
                f"give 8 bits a channel (uint8), {_OR_A_RANGE}"
            )
        if values.size and values.max() <= HIGHEST_OF_12_BITS:
            raise InputError(
                f"{where}: 16 bits, but nothing in it is above {values.max()}, as in scans of 12 bits, so white is not "
                f"known; give 8 bits a channel (uint8), {_OR_A_RANGE}"
            )
    low, high = value_range or FULL_16_BITS
    if not np.isfinite(values).all():
        raise InputError(f"{where}: holds {values[~np.isfinite(values)][0]}, which is no finite number")
    shares = (values.astype(np.float64) - low) / (high - low)
    pixels: NDArray[np.uint8] = np.rint(255 * shares.clip(0, 1)).astype(np.uint8)
    return pixels


_OR_A_RANGE = "or import the data with the range they have (--range LOW,HIGH)"


def depth_of(image: Image.Image) -> int | None:
    """The highest number in an image of 16 bits; None for 8 bits, and for types without a range of their own.

    Of colours of 16 bits Pillow leaves the upper byte only; so this is at most 255 too low.
    """
    if _UPPER_BYTE in image.info:
        extrema = image.getextrema()
        bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
        return 256 * max(int(band[1]) for band in bands[: 3 if len(bands) > 2 else 1])
    return int(np.asarray(image).max()) if image.mode.startswith("I;16") else None


def is_deep(image: Image.Image) -> bool:
    """Whether the image has more than 8 bits a channel or floats, so that a value range applies."""
    return _holds_numbers(image) or _UPPER_BYTE in image.info


def _holds_numbers(image: Image.Image) -> bool:
    """Whether its one channel holds integers of more than 8 bits (I, I;16, ...) or floats (F)."""
    return image.mode[0] in "IF"


def _eight_bits(image: Image.Image, value_range: ValueRange | None, where: str) -> Image.Image:
    """An image of one channel of integers or floats as grey."""
    values = np.asarray(image)
    pixels = scaled(values, value_range, where)
    if "transparency" in image.info:
        pixels = np.where(values == image.info["transparency"], np.uint8(255), pixels)
    return Image.fromarray(pixels)


def _check_upper_byte(image: Image.Image, value_range: ValueRange | None, where: str) -> None:
    """Refuse colours of 16 bits, of which Pillow reads the upper byte, where that is not enough."""
    if _UPPER_BYTE not in image.info:
        if not _upper_byte(image):
            return
        image.load()
        image.info[_UPPER_BYTE] = True
    highest = depth_of(image) or 0
    if value_range is None and highest <= HIGHEST_OF_12_BITS:
        raise InputError(
            f"{where}: 16 bits a channel, but nothing in it is above {highest + 255}, as in scans of 12 bits, so white "
            "is not known; give 8 bits a channel"
        )
    if value_range not in (None, FULL_16_BITS):
        raise InputError(
            f"{where}: 16 bits a channel of colour, of which only the upper 8 can be read, so the range "
            f"{value_range[0]:g} to {value_range[1]:g} can't be applied; give 8 bits a channel, or grey"
        )


def _upper_byte(image: Image.Image) -> bool:
    """Whether Pillow cuts 16 bits a channel down to 8 as it loads an image, which it has not loaded yet."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    return not _holds_numbers(image) and any(";16" in str(tile.args) for tile in tiles)


def _has_more(image: Image.Image) -> bool:
    """Whether a file holds other pictures beside its first."""
    frames = getattr(image, "n_frames", 1)
    if frames == 1 or image.format in _FIRST_IS_THE_PICTURE:
        return False
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return True
    for frame in range(1, frames):
        image.seek(frame)
        if not int(image.tag_v2.get(_REDUCED_PAGE, 0)) & 1:
            return True
    image.seek(0)
    return False


@contextmanager
def _named(image: Image.Image, where: str) -> Iterator[None]:
    """Errors of a conversion, whatever Pillow raises, name the image."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{where}: its pixels (mode {image.mode}) can't be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
