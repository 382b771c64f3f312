"""The importer of one's own images: a folder per class or a CSV file of labels, in a folder or an archive."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from metaray.config import replace
from metaray.data.archives import open_tree
from metaray.data.draws import SPLITS, Split
from metaray.data.file_tree import FileTree
from metaray.data.importing import ImageFile, ImportReport, Progress, image_preprocessing, import_classes
from metaray.data.label_tables import read_labels
from metaray.data.layout import Found, Nested, find_classes
from metaray.data.pictures import ValueRange, decode_image
from metaray.data.preprocessing import ImagePreprocessing, Resample
from metaray.data.replacing import check_replaceable
from metaray.data.splits import USUAL, Fractions, chosen_splits, given_splits
from metaray.errors import InputError

USUAL_SIDE = 84


def import_images(
    folder: Path,
    out: Path,
    *,
    size: int | tuple[int, int] = USUAL_SIDE,
    mode: Literal["L", "RGB"] = "RGB",
    invert: bool = False,
    resample: Resample = "lanczos",
    value_range: ValueRange | None = None,
    like: ImagePreprocessing | None = None,
    splits: Path | Fractions | None = None,
    seed: int = 0,
    depth: int = 1,
    nested: Nested = "refuse",
    labels: Sequence[Path] = (),
    columns: Sequence[str] = (),
    encoding: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> ImportReport:
    """Build a class store from images of any format that Pillow reads, with the split scheme "default".

    Args:
        folder: Folder with one folder for each class, named like the class; or an archive (zip, tar) of it. Files
            beside the class folders, hidden files and system clutter are skipped.
        out: Path of the store to write.
        size: Size of the examples in pixels: the side of a square, or (height, width).
        mode: Mode of the examples: grey ("L") or colour ("RGB").
        invert: Whether to store 255 - pixel.
        resample: Filter for resizing. The store keeps it, so that learners resize new images alike.
        value_range: Numbers for black and white in images of floats or of more than 8 bits a channel. The store keeps
            them, so that learners convert new images alike.
        like: Description of an encoder's images, which replaces size, mode, invert and resample, and adds a
            normalisation.
        splits: Folder with train.txt, val.txt and test.txt, one class name a line; or the shares of classes, drawn at
            random by `seed`. None takes the splits that the data come with (see `find_classes` and `read_labels`), else
            shares of 0.64, 0.16 and 0.2.
        seed: Seed of the random splits.
        depth: Number of levels of folders down to the class folders; with more than 1, the folders above them are the
            groups of the classes.
        nested: What to do with files in folders inside a class folder.
        labels: CSV files that name the class of each image, instead of the folders.
        columns: Names of the columns of file, class and, optionally, split and group in these CSV files.
        encoding: Encoding of names in an archive, and of CSV files, if they are not UTF-8.
        tell: Function that is called with a line about what was found, before any image is converted.
        progress: Function that is called with the numbers of finished and of all images.

    Raises:
        InputError: If there are no classes, or other levels of folders than expected; a file in a class folder is not
            an image or is damaged; the filter is unknown; images need a `value_range` or have none; splits overlap,
            leave a meta-split without a class or do not fit the classes; or `out` cannot be written.
    """
    check_replaceable(out)
    preprocessing = like or image_preprocessing(size, mode, invert, resample)
    preprocessing = replace(preprocessing, value_range=value_range)
    if labels and (depth, nested) != (1, "refuse"):
        raise InputError("--labels takes the classes from a table: --depth and --nested do not go with it")
    if columns and not labels:
        raise InputError(f"--columns {','.join(columns)!r}: names columns of --labels, which is not given")
    with open_tree(folder, encoding) as tree:
        if labels:
            found = read_labels(tree, labels, columns=columns, encoding=encoding)
        else:
            found = find_classes(tree, lambda name: _is_image(tree, name), depth=depth, nested=nested)
        by_name, by = _splits(found, splits, seed, str(folder))
        tell(f"found {found.summary}")
        tell(
            f"splits: {' / '.join(str(len(by_name[split])) for split in SPLITS)} classes for {', '.join(SPLITS)}: {by}"
        )
        names = list(found.classes)
        ids = {name: i for i, name in enumerate(names)}
        notes = import_classes(
            out,
            {name: [ImageFile(tree, file) for file in files] for name, files in found.classes.items()},
            schemes={"default": {split: sorted(ids[name] for name in members) for split, members in by_name.items()}},
            preprocessing=preprocessing,
            origin={"importer": "images", "source": folder.name, "splits": by},
            groups=found.groups,
            progress=progress,
        )
    return ImportReport(out, len(names), sum(map(len, found.classes.values())), ("default",), (*found.notes, *notes))


def _is_image(tree: FileTree, name: str) -> bool:
    try:
        decode_image(tree.read(name), tree.where(name))
    except InputError:
        return False
    return True


def _splits(found: Found, splits: Path | Fractions | None, seed: int, where: str) -> tuple[dict[Split, list[str]], str]:
    """The classes of every split, and how they came about."""
    names = list(found.classes)
    if splits is None and found.given:
        return given_splits(found.given, seed, where=where, by=found.by)
    instead = f" (--splits; not {found.by})" if found.given else ""
    by_name, by = chosen_splits(names, splits or USUAL, seed)
    return by_name, f"{by}{instead}"
