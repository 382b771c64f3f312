"""The importer of one's own images: a folder per class, in a folder or a zip archive."""

import random
from collections.abc import Sequence
from math import isclose
from pathlib import Path
from typing import Literal

from metaray.data.archives import FileTree, open_tree
from metaray.data.draws import SPLITS, Split
from metaray.data.importing import ImageFile, ImportReport, Progress, import_classes
from metaray.data.pictures import ValueRange
from metaray.data.preprocessing import ImagePreprocessing
from metaray.data.store_file import check_disjoint, check_writable
from metaray.errors import InputError, unknown

SPLIT_FILES: dict[Split, str] = {"meta-train": "train.txt", "meta-val": "val.txt", "meta-test": "test.txt"}

Fractions = tuple[float, float, float]


def import_images(
    folder: Path,
    out: Path,
    *,
    size: int | tuple[int, int],
    mode: Literal["L", "RGB"] = "RGB",
    invert: bool = False,
    value_range: ValueRange | None = None,
    splits: Path | Fractions = (0.64, 0.16, 0.2),
    seed: int = 0,
    progress: Progress | None = None,
) -> ImportReport:
    """Build a store with the split scheme "default" from images of any format that Pillow reads.

    Args:
        folder: holds a folder per class, named like the class; or a zip archive of it. Files beside the class folders,
            hidden files and system clutter are passed over.
        out: the store to write.
        size: of the examples in pixels: the side of a square, or (height, width).
        mode: grey or colour.
        invert: store 255 - pixel.
        value_range: the numbers that mean black and white in images of more than 8 bits a channel, or of floats. The
            store keeps it, so that learners convert new images alike.
        splits: a folder with train.txt, val.txt and test.txt, which name one class a line; or the fractions of the
            classes, drawn at random by `seed`.
        seed: of the random splits.
        progress: called with (images done, images in all).

    Raises:
        InputError: no classes; a file in a class folder that is no image or a damaged one; images that
            need a `value_range`, or don't; split files that are
            missing, overlap, or don't fit the class folders; fractions that give a meta-split no class; an unwritable
            `out`.
    """
    check_writable(out)
    preprocessing = _preprocessing(size, mode, invert, value_range)
    with open_tree(folder) as tree:
        classes = _classes(tree)
        names = list(classes)
        by_name = read_splits(splits, names) if isinstance(splits, Path) else random_splits(names, splits, seed)
        notes = import_classes(
            out,
            classes,
            schemes={"default": {split: sorted(map(names.index, members)) for split, members in by_name.items()}},
            preprocessing=preprocessing,
            origin={"importer": "images", "source": folder.name, "splits": _origin_of(splits, seed)},
            progress=progress,
        )
    return ImportReport(out, len(classes), sum(map(len, classes.values())), ("default",), notes)


def _preprocessing(
    size: int | tuple[int, int], mode: Literal["L", "RGB"], invert: bool, value_range: ValueRange | None
) -> ImagePreprocessing:
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise InputError(f"an image size of {height}x{width} pixels; both sides must be at least 1")
    values = {"height": height, "width": width, "mode": mode, "invert": invert, "value_range": value_range}
    return ImagePreprocessing.parse(values, where="import")


def random_splits(names: Sequence[str], fractions: Fractions, seed: int) -> dict[Split, list[str]]:
    """Deal the classes to the meta-splits at random.

    Raises:
        InputError: fractions that don't sum to 1, or one above 0 that gets no class.
    """
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or not isclose(sum(fractions), 1, abs_tol=1e-6):
        raise InputError(f"split fractions {fractions} must be three numbers, at least 0, that sum to 1")
    shuffled = sorted(names)
    random.Random(seed).shuffle(shuffled)
    bounds = [round(sum(fractions[:i]) * len(names)) for i in range(len(SPLITS) + 1)]
    splits = {split: shuffled[bounds[i] : bounds[i + 1]] for i, split in enumerate(SPLITS)}
    for split, fraction in zip(SPLITS, fractions, strict=True):
        if fraction > 0 and not splits[split]:
            raise InputError(f"a fraction of {fraction:g} of {len(names)} classes leaves {split} without a class")
    return splits


def read_splits(folder: Path, names: Sequence[str]) -> dict[Split, list[str]]:
    """Read train.txt, val.txt and test.txt.

    Raises:
        InputError: a missing file, a name that is no class, a class that no file or more than one names.
    """
    ids = {name: i for i, name in enumerate(names)}
    splits: dict[Split, list[str]] = {}
    for split, file in SPLIT_FILES.items():
        splits[split] = _lines(folder / file)
        for line in splits[split]:
            if line not in ids:
                raise InputError(f"{folder / file}: {unknown('class', line, names)}")
    scheme = {split: [ids[name] for name in members] for split, members in splits.items()}
    check_disjoint(scheme, names, where=str(folder))
    listed = {name for members in splits.values() for name in members}
    if missing := [name for name in names if name not in listed]:
        raise InputError(f"{folder}: none of {', '.join(SPLIT_FILES.values())} names the class {missing[0]!r}")
    return splits


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: can't read the split: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _classes(tree: FileTree) -> dict[str, list[ImageFile]]:
    """Class name -> its images, both sorted."""
    depth = _depth_of_classes(tree)
    classes: dict[str, list[ImageFile]] = {}
    for name in tree.names:
        parts = name.split("/")
        if len(parts) > depth + 1:
            classes.setdefault(parts[depth], []).append(ImageFile(tree, name))
    if not classes:
        raise InputError(f"{tree.path}: no class in it; expected a folder per class that holds its images")
    return dict(sorted(classes.items()))


def _depth_of_classes(tree: FileTree) -> int:
    """1 for an archive of the folder itself, where all files lie two folders deep or more; else 0."""
    paths = [name.split("/") for name in tree.names]
    one_root = len({parts[0] for parts in paths}) == 1 and min(map(len, paths), default=0) >= 2
    return 1 if one_root and not tree.path.is_dir() and any(len(parts) > 2 for parts in paths) else 0


def _origin_of(splits: Path | Fractions, seed: int) -> str:
    if isinstance(splits, Path):
        return f"the files in {splits.name}"
    return f"fractions {' '.join(f'{fraction:g}' for fraction in splits)}, seed {seed}"
