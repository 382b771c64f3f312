"""Image files and Pillow's images of every kind: their pixels are right, or they are refused by name."""

import io
import struct
import zlib
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from metaray.data.pictures import FULL_16_BITS, ValueRange, decode_image, depth_of, is_deep, scaled, to_mode
from metaray.data.preprocessing import ImagePreprocessing
from metaray.errors import InputError

Mode = Literal["L", "RGB"]


def written(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_of_16_bits(pixels: NDArray[np.uint16], colour_type: int, transparent: int | None = None) -> bytes:
    """Pillow writes no colours of 16 bits."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    extra = b"" if transparent is None else chunk(b"tRNS", struct.pack(">H", transparent))
    whole = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + whole


def grey(image: Image.Image, value_range: ValueRange | None = None, mode: Mode = "L") -> Any:
    return np.asarray(to_mode(image, mode, value_range, "scan.png")).tolist()


STEPS = np.array([[0, 1000, 2048, 4095]], np.uint16)
EIGHT = [[0, 62, 128, 255]]  # 255 * STEPS / 4095


@pytest.mark.parametrize("dtype", ["uint16", ">u2", "int32", "float32"])
def test_a_range_scales_whatever_type_the_numbers_have(dtype: str) -> None:
    assert grey(Image.fromarray(STEPS.astype(dtype)), (0, 4095)) == EIGHT
    assert scaled(STEPS.astype(dtype), (0, 4095), "x").tolist() == EIGHT


def test_what_lies_outside_the_range_is_black_or_white() -> None:
    hounsfield = np.array([[-2000, -1000, 0, 1000, 3000]], np.int32)
    assert grey(Image.fromarray(hounsfield), (-1000, 1000)) == [[0, 0, 128, 255, 255]]
    assert grey(Image.fromarray(np.array([[0.0, 0.25, 1.0]], np.float32)), (0, 1)) == [[0, 64, 255]]


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.array([[0.0, 0.5]], np.float32), "scan.png: float32 has no range of its own"),
        (np.array([[0, 70000]], np.int32), "scan.png: int32 has no range of its own"),
        (STEPS, "scan.png: 16 bits, but nothing in it is above 4095, as in scans of 12 bits"),
    ],
    ids=["float", "wide integers", "12 bits"],
)
def test_numbers_without_a_range_are_refused(pixels: NDArray[Any], message: str) -> None:
    for mode in ("L", "RGB"):
        with pytest.raises(InputError, match=message):
            to_mode(Image.fromarray(pixels), mode, None, "scan.png")
    with pytest.raises(InputError, match=r"--range LOW,HIGH"):
        to_mode(Image.fromarray(pixels), "L", None, "scan.png")


def test_not_a_number_is_no_pixel() -> None:
    with pytest.raises(InputError, match="scan.tif: holds nan, which is no finite number"):
        to_mode(Image.fromarray(np.array([[0.0, np.nan]], np.float32)), "L", (0, 1), "scan.tif")


def test_16_bits_of_grey() -> None:
    deep = np.array([[0, 257, 32896, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        image = decode_image(written(Image.fromarray(deep), kind), "x")
        assert grey(image) == grey(image, FULL_16_BITS) == [[0, 1, 128, 255]]
        assert depth_of(image) == 65535 and is_deep(image)
    assert grey(Image.fromarray(STEPS // 16), FULL_16_BITS) == [[0, 0, 0, 1]]


def test_transparent_grey_of_16_bits_is_white_paper() -> None:
    image = decode_image(png_of_16_bits(np.array([[0, 5, 65535]], np.uint16), 0, transparent=5), "x")
    assert grey(image) == [[0, 255, 255]]


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colours_of_16_bits_by_their_upper_byte(channels: int) -> None:
    kind = {2: 4, 3: 2, 4: 6}[channels]
    pixels = np.full((1, 2, channels), 65535, np.uint16)
    pixels[0, 0, : channels - (channels != 3)] = 0x1234
    file = png_of_16_bits(pixels, kind)
    image = decode_image(file, "scan.png")
    assert is_deep(image) and depth_of(image) == 256 * 255
    assert grey(image) == grey(Image.open(io.BytesIO(file))) == [[0x12, 255]]
    with pytest.raises(InputError, match=r"scan.png: 16 bits a channel of colour, .* 0 to 4095 can't be applied"):
        to_mode(image, "L", (0, 4095), "scan.png")
    pixels[..., : channels - (channels != 3)] //= 16
    dark = decode_image(png_of_16_bits(pixels, kind), "scan.png")
    with pytest.raises(InputError, match=r"scan.png: 16 bits a channel, but nothing in it is above 4095"):
        to_mode(dark, "RGB", None, "scan.png")
    assert grey(dark, FULL_16_BITS) == [[1, 15]]


def test_a_portable_graymap_says_what_its_white_is() -> None:
    image = decode_image(b"P5 4 1 4095\n" + STEPS.astype(">u2").tobytes(), "x.pgm")
    assert grey(image) == grey(image, (0, 100)) == EIGHT and not is_deep(image)


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "LA", "PA", "La", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"]
)
@pytest.mark.parametrize("wanted", ["L", "RGB"])
def test_8_bits_of_every_mode(mode: str, wanted: Mode) -> None:
    image = Image.new(mode, (3, 2))
    if mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        image.putalpha(255) if mode in ("RGBA", "LA", "PA") else None
    pixels = np.asarray(to_mode(image, wanted, None, "x"))
    assert pixels.shape == ((2, 3) if wanted == "L" else (2, 3, 3)) and pixels.dtype == np.uint8
    # Nothing is black, in inks white, and where it is transparent it is paper.
    assert (pixels == (255 if mode in ("CMYK", "La", "RGBa") else pixels[0, 0])).all()
    assert np.array_equal(pixels, np.asarray(to_mode(image, wanted, (0, 7), "x"))), "a range is for other depths"


def test_a_lab_tiff_is_converted() -> None:
    red = Image.new("LAB", (2, 2), (136, 208, 195))
    assert grey(decode_image(written(red, "TIFF"), "red.tif"), mode="RGB")[0][0][0] > 240


def frames(*greys: int) -> list[Image.Image]:
    return [Image.new("L", (4, 4), grey) for grey in greys]


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG", "WEBP"])
def test_a_file_of_several_frames_is_refused(kind: str) -> None:
    first, *rest = frames(0, 100, 200)
    raw = written(first, kind, save_all=True, append_images=rest)
    with pytest.raises(InputError, match=rf"stack.x: holds 3 frames \({kind}\); give one image a file"):
        decode_image(raw, "stack.x")
    assert decode_image(written(first, kind, save_all=True), "x").size == (4, 4)


def test_previews_are_no_frames() -> None:
    first, second = frames(7, 9)
    photo = written(first, "MPO", save_all=True, append_images=[second])
    assert decode_image(photo, "phone.jpg").getpixel((0, 0)) == 7
    second.encoderinfo, second.encoderconfig = {"tiffinfo": {254: 1}}, ()
    pyramid = written(first, "TIFF", save_all=True, append_images=[second])
    assert decode_image(pyramid, "slide.tif").getpixel((0, 0)) == 7


def test_orientation_is_applied_and_broken_details_are_named() -> None:
    image = Image.new("L", (2, 1))
    image.putpixel((0, 0), 200)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert grey(decode_image(written(image, "PNG", exif=exif), "x")) == [[200], [0]]
    image.info["transparency"] = "nonsense"
    with pytest.raises(InputError, match=r"x\.png: its pixels \(mode L\) can't be read"):
        to_mode(image, "L", None, "x.png")


def test_errors_of_damaged_files_name_them() -> None:
    whole = written(Image.effect_noise((32, 32), 50), "TIFF", compression="tiff_lzw")
    generator = np.random.default_rng(0)
    for raw in (whole, written(Image.effect_noise((32, 32), 50), "PNG"), written(Image.new("LAB", (9, 9)), "TIFF")):
        for _ in range(60):
            damaged = bytearray(raw)
            for place in generator.integers(0, len(raw), 3):
                damaged[place] = generator.integers(256)
            try:
                ImagePreprocessing(height=4, width=4).image(decode_image(bytes(damaged), "scan.x"), "scan.x")
            except InputError as error:
                assert str(error).startswith("scan.x: ")


@pytest.mark.parametrize("value_range", [(0, 4095), (0, 65535), (-1000, 400), (0, 1)])
def test_exported_pictures_come_back_under_a_range(value_range: ValueRange) -> None:
    preprocessing = ImagePreprocessing(height=16, width=16, value_range=value_range)
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    file = written(preprocessing.picture(pixels), "PNG")
    assert np.array_equal(preprocessing.image(decode_image(file, "x")), pixels)
