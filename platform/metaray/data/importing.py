"""What the importers of image data share: decoding in parallel, and writing the result as a store."""

import io
import os
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from struct import error as struct_error
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from metaray.data.file_tree import FileTree
from metaray.data.image_files import open_image
from metaray.data.preprocessing import ImagePreprocessing
from metaray.data.store_file import Schemes, write_store
from metaray.errors import InputError

Progress = Callable[[int, int], None]

# What Pillow's readers raise on files that are damaged or no images.
DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    zlib.error,
    struct_error,
    Image.DecompressionBombError,
)
FILES_PER_BATCH = 64


class ImageFile(NamedTuple):
    """One image to import: a file of an open folder or archive."""

    tree: FileTree
    name: str


class ImportReport(NamedTuple):
    """What an import made.

    Attributes:
        path: of the store.
        classes: how many.
        examples: how many.
        schemes: the names of its split schemes.
        notes: what the user should know, a sentence each.
    """

    path: Path
    classes: int
    examples: int
    schemes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def decode_image(raw: bytes, where: str) -> Image.Image:
    """Decode the first frame of an image file.

    Raises:
        InputError: naming the file `where`: not an image, or a damaged one.
    """
    try:
        with open_image(io.BytesIO(raw)) as image:
            return image.copy()
    except UnidentifiedImageError:
        raise InputError(f"{where}: not an image that Pillow can read") from None
    except DECODING_ERRORS as error:
        raise InputError(f"{where}: a damaged image: {error}") from None


def import_classes(
    out: Path,
    classes: Mapping[str, Sequence[ImageFile]],
    *,
    schemes: Schemes,
    preprocessing: ImagePreprocessing,
    origin: Mapping[str, str],
    progress: Progress | None = None,
) -> None:
    """Decode the images of every class, in order, and write them as a store.

    Args:
        out: the file to write.
        classes: class name -> its images; the order gives the class ids.
        schemes: as in `write_store`.
        preprocessing: applied to every image.
        origin: free notes.
        progress: called with (images done, images in all).

    Raises:
        InputError: the first file that is damaged or no image; what `write_store` refuses.
    """
    files = [file for images in classes.values() for file in images]
    folder = out.absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    # Decoded into a file without a name beside the store: the data may be larger than memory.
    with tempfile.TemporaryFile(dir=folder) as scratch:
        shape = (len(files), *preprocessing.feature_shape)
        images: NDArray[np.uint8] = np.memmap(scratch, dtype=np.uint8, mode="w+", shape=shape)
        _decode_all(files, images, preprocessing, progress)
        write_store(
            out,
            images=images,
            counts=[len(images) for images in classes.values()],
            class_names=list(classes),
            schemes=schemes,
            preprocessing=preprocessing,
            origin=origin,
        )


def _decode_all(
    files: Sequence[ImageFile],
    images: NDArray[np.uint8],
    preprocessing: ImagePreprocessing,
    progress: Progress | None,
) -> None:
    def decode(start: int) -> int:
        batch = files[start : start + FILES_PER_BATCH]
        for row, (tree, name) in enumerate(batch, start):
            images[row] = preprocessing.image(decode_image(tree.read(name), tree.where(name)))
        return len(batch)

    done = 0
    # Pillow releases the interpreter lock while it decodes; more threads than cores only fight for it.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        try:
            for count in pool.map(decode, range(0, len(files), FILES_PER_BATCH)):
                done += count
                if progress is not None:
                    progress(done, len(files))
        except InputError:
            pool.shutdown(cancel_futures=True)
            raise
