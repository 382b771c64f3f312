import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from metaray.data.image_files import open_image
from metaray.data.pictures import decode_image
from metaray.data.preprocessing import ImagePreprocessing
from metaray.data.preprocessing.raw_images import _image
from metaray.errors import InputError
from metaray.serving.folders import _check_image

PREPROCESSING = ImagePreprocessing(height=4, width=4)


def png(width: int, height: int) -> bytes:
    """The head of one that claims to be so large."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(1, 60_000_000), (40_000, 1), (9_000, 9_000), (10_000, 10_000), (60_000, 60_000)])
@pytest.mark.parametrize("way", ["import", "folder", "pyfunc", "path"])
def test_an_image_of_a_monstrous_size_is_refused_before_it_is_decoded(
    size: tuple[int, int], way: str, tmp_path: Path
) -> None:
    data, path = png(*size), tmp_path / "a.png"
    path.write_bytes(data)
    ways: dict[str, Callable[[], object]] = {
        "import": lambda: decode_image(data, str(path)),
        "folder": lambda: _check_image(path),
        "pyfunc": lambda: PREPROCESSING.from_cells([[data]], ["image"], lambda _: "row 3"),
        "path": lambda: _image(path, PREPROCESSING, 0),
    }
    with pytest.raises(InputError, match=r"a\.png|row 3") as caught:
        ways[way]()
    assert "pixels" in str(caught.value)


def test_a_size_that_pillow_only_warns_of_is_refused_where_warnings_are_not_errors_too() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Image.DecompressionBombError, match="10000 x 10000 pixels; at most 32768 a side"):
            open_image(io.BytesIO(png(10_000, 10_000)))
