"""What the importers of image data share: decoding in parallel, and writing the result as a store."""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metaray.config import replace
from metaray.data.file_tree import FileTree
from metaray.data.names import is_image_name, some
from metaray.data.pictures import FULL_16_BITS, HIGHEST_OF_12_BITS, NoImage, ValueRange, decode_image, depth_of, is_deep
from metaray.data.preprocessing import RESAMPLING, ImagePreprocessing, Resample
from metaray.data.store_file import Schemes, write_store
from metaray.data.uniform import uniform_classes
from metaray.errors import InputError, unknown

Progress = Callable[[int, int], None]

FILES_PER_BATCH = 64


class ImageFile(NamedTuple):
    """An image to import: a file of an open folder or archive."""

    tree: FileTree
    name: str


class ImportReport(NamedTuple):
    """The result of an import.

    Attributes:
        path: Path of the written store.
        classes: Number of classes.
        examples: Number of examples.
        schemes: Names of the split schemes.
        notes: Messages for the user, one sentence each.
    """

    path: Path
    classes: int
    examples: int
    schemes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def image_preprocessing(
    size: int | tuple[int, int],
    mode: Literal["L", "RGB"],
    invert: bool,
    resample: Resample,
    value_range: ValueRange | None = None,
) -> ImagePreprocessing:
    """The image preprocessing for an importer's options.

    Args:
        size: Size of the examples in pixels: the side of a square, or (height, width).
        mode: Mode of the examples, as in `ImagePreprocessing`: "L" or "RGB".
        invert: Whether pixels are inverted, as in `ImagePreprocessing`.
        resample: How images are resized, as in `ImagePreprocessing`.
        value_range: Range of pixels of more than 8 bits, as in `ImagePreprocessing`.

    Raises:
        InputError: If a side is below one pixel, or Pillow has no such filter.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise InputError(f"an image size of {height}x{width} pixels; both sides must be at least 1")
    if resample not in RESAMPLING:
        raise unknown("filter to resize with", resample, RESAMPLING)
    values = {"height": height, "width": width, "mode": mode, "invert": invert, "resample": resample}
    return ImagePreprocessing.parse(values | {"value_range": value_range}, where="import")


def import_classes(
    out: Path,
    classes: Mapping[str, Sequence[ImageFile]],
    *,
    schemes: Schemes,
    preprocessing: ImagePreprocessing,
    origin: Mapping[str, str],
    groups: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Decode the images of every class, in order, and write them as a store.

    Args:
        out: Path of the file to write.
        classes: Images of each class by its name; the order gives the class ids.
        schemes: Split schemes, as in `write_store`.
        preprocessing: Preprocessing of every image. If it has no value range and some images have 16 bits, the store
            gets that of 16 bits.
        origin: Notes to store with the file.
        groups: Name of each class's group, by class name; None if there are no groups.
        progress: Function that is called with the numbers of finished and of all images.

    Returns:
        Messages about the images, one sentence each.

    Raises:
        InputError: The first file that is damaged or no image, or holds numbers without a known range; images that
            don't fit the value range; what `write_store` refuses.
    """
    files = [file for images in classes.values() for file in images]
    folder = out.absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    # Decoded into a file without a name beside the store: the data may be larger than memory.
    with tempfile.TemporaryFile(dir=folder) as scratch:
        shape = (len(files), *preprocessing.feature_shape)
        images: NDArray[np.uint8] = np.memmap(scratch, dtype=np.uint8, mode="w+", shape=shape)
        depths = _decode_all(files, images, preprocessing, progress)
        if preprocessing.value_range is None and depths.deep:
            preprocessing = replace(preprocessing, value_range=FULL_16_BITS)
        counts, names = [len(members) for members in classes.values()], list(classes)
        write_store(
            out,
            examples=images,
            counts=counts,
            class_names=names,
            schemes=schemes,
            preprocessing=preprocessing,
            origin=origin,
            groups=None if groups is None else [groups[name] for name in names],
        )
        return (*depths.notes(len(files)), *uniform_classes(images, counts, names))


@dataclass
class _Depths:
    """How deep the images of an import are.

    Attributes:
        value_range: Range that the user gives, if any.
        deep: How many images have more than 8 bits a channel.
        highest: Number in those of 16 bits.
        example: The first of them by name.
    """

    value_range: ValueRange | None
    deep: int = 0
    highest: int = 0
    example: str = ""

    def see(self, image: Image.Image, where: str) -> None:
        """Count an image."""
        if is_deep(image):
            self.deep += 1
            self.highest = max(self.highest, depth_of(image) or 0)
            self.example = min(self.example or where, where)

    def check(self) -> None:
        """Check what only all images together tell, after the last one.

        Raises:
            InputError: A range that no image needs, or one that is needed.
        """
        if self.value_range is not None and not self.deep:
            raise InputError(
                "the range {:g},{:g} is for images of more than 8 bits a channel, or of floats; all of these have 8 "
                "bits, which need none: leave it out".format(*self.value_range)
            )
        if self.value_range is None and self.deep and self.highest <= HIGHEST_OF_12_BITS:
            raise InputError(
                f"{self.example}: 16 bits a channel, but nothing in it, or in the other images of 16 bits "
                f"({self.deep} in all), is above {self.highest}; are these scans of 12 bits? Say which numbers are "
                f"black and white: --range 0,{HIGHEST_OF_12_BITS} (or 0,65535 if they are meant to be dark)"
            )

    def notes(self, files: int) -> tuple[str, ...]:
        """The rule by which images of more than 8 bits were scaled."""
        if not self.deep:
            return ()
        low, high = self.value_range or FULL_16_BITS
        rest = f"; the other {files - self.deep} have 8 bits" if self.deep < files else ""
        return (
            f"{self.deep} images of more than 8 bits a channel are scaled by the range {low:g} to {high:g}, which the "
            f"store keeps for new images{rest}",
        )


def _move_out(files: Sequence[ImageFile], refused: str) -> str:
    """What to do about a file that is no image, and about those which by their endings are none either."""
    others = [name for _, name in files if name != refused and not is_image_name(name)]
    more = f"; so it is with {some(others)}, by the ending" if others else ""
    return f". Classes hold images alone: move it elsewhere, or repair it{more}"


def _decode_all(
    files: Sequence[ImageFile],
    images: NDArray[np.uint8],
    preprocessing: ImagePreprocessing,
    progress: Progress | None,
) -> _Depths:
    depths = _Depths(preprocessing.value_range)
    # Whether 16 bits are only 12 is a question about all images, not about one that may be dark.
    of_16_bits = preprocessing if preprocessing.value_range else replace(preprocessing, value_range=FULL_16_BITS)
    lock = Lock()

    def decode(start: int) -> int:
        batch = files[start : start + FILES_PER_BATCH]
        for row, (tree, name) in enumerate(batch, start):
            where = tree.where(name)
            try:
                image = decode_image(tree.read(name), where)
            except NoImage as error:
                raise InputError(f"{error}{_move_out(files, name)}") from None
            with lock:
                depths.see(image, where)
            rule = preprocessing if depth_of(image) is None else of_16_bits
            images[row] = rule.image(image, where)
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
    depths.check()
    return depths
