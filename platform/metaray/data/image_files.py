"""Opening image files that anybody may have made."""

from pathlib import Path
from typing import IO

from PIL import Image

MOST_PIXELS = 1 << 26
LONGEST_SIDE = 1 << 15


def open_image(file: Path | str | IO[bytes]) -> Image.Image:
    """An image of a size that it makes sense to decode.

    Raises:
        Image.DecompressionBombError: If it is larger; says how large, and what would be right.
    """
    try:
        image = Image.open(file)
    except Image.DecompressionBombWarning as warning:  # where warnings are errors
        raise Image.DecompressionBombError(str(warning)) from None
    if max(image.size) > LONGEST_SIDE or image.width * image.height > MOST_PIXELS:
        image.close()
        raise Image.DecompressionBombError(
            f"{image.width} x {image.height} pixels; at most {LONGEST_SIDE} a side and {MOST_PIXELS} in all"
        )
    return image
