"""The importer of Omniglot (Lake, Salakhutdinov, Tenenbaum, Science 2015), with its usual splits."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from typing import Literal

from metaray.data.archives import open_tree
from metaray.data.draws import SPLITS, Split
from metaray.data.file_tree import FileTree
from metaray.data.groups import folder_of
from metaray.data.importing import ImageFile, ImportReport, Progress, image_preprocessing, import_classes
from metaray.data.preprocessing import Resample
from metaray.data.replacing import check_replaceable
from metaray.data.splits import Fractions, chosen_splits
from metaray.errors import InputError, unknown
from metaray.json_text import parse_object

PARTS = ("images_background", "images_evaluation")
SCHEMES = ("vinyals", "maml", "lake")
ORIGIN = {
    "importer": "omniglot",
    "source": "Omniglot, https://github.com/brendenlake/omniglot",
    "licence": "MIT (c) 2015 Brenden Lake",
}


def import_omniglot(
    source: Path | Sequence[Path],
    out: Path,
    *,
    size: int | tuple[int, int] = 28,
    mode: Literal["L", "RGB"] = "L",
    invert: bool = True,
    resample: Resample = "lanczos",
    splits: Path | Fractions | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> ImportReport:
    """Build the Omniglot store: by default 28x28 with Lanczos as in MAML, ink high; classes "Alphabet/characterNN".

    The groups of its classes are the alphabets.

    The split schemes are `vinyals` (1028 / 172 / 423 classes), `maml` (1100 / 100 / 423, random) and `lake` (25 of the
    background alphabets / the other 5 / the 20 evaluation alphabets). Of a partial data set only the schemes whose
    classes are all there are kept.

    Args:
        source: The two official zips, or the folders they unpack to, or a folder that holds either.
        out: Path of the store to write.
        size: Size of the examples in pixels: the side of a square, or (height, width).
        mode: Mode of the examples: grey ("L") or colour ("RGB").
        invert: Whether to store 255 - pixel, since the drawings have 0 for ink.
        resample: Filter for resizing.
        splits: An additional split scheme "default": a folder with train.txt, val.txt and test.txt, one class name a
            line; or the shares of classes, drawn at random by `seed`. None adds no scheme.
        seed: Seed of the random splits.
        progress: Function that is called with the numbers of finished and of all images.

    Raises:
        InputError: If nothing is found there, an archive or image is damaged, names are not Omniglot's, the filter is
            unknown, splits do not fit the classes, no split scheme is complete, or `out` cannot be written.
    """
    check_replaceable(out)
    preprocessing = image_preprocessing(size, mode, invert, resample)
    published = {name: published_split(name) for name in SCHEMES}
    paths = _parts([source] if isinstance(source, Path) else source)
    with ExitStack() as stack:
        classes = _classes([stack.enter_context(open_tree(path)) for path in paths])
        origin = dict(ORIGIN)
        if splits is not None:
            published["default"], origin["splits"] = chosen_splits(list(classes), splits, seed)
        schemes, notes = _complete_schemes(published, list(classes))
        if not schemes:
            listed = ", ".join(str(path) for path in paths)
            raise InputError(f"{listed}: an incomplete Omniglot without any complete split: " + "; ".join(notes))
        notes += import_classes(
            out,
            classes,
            schemes=schemes,
            preprocessing=preprocessing,
            origin=origin,
            groups={name: folder_of(name) for name in classes},
            progress=progress,
        )
    return ImportReport(out, len(classes), sum(map(len, classes.values())), tuple(schemes), notes)


def published_split(name: str) -> dict[Split, list[str]]:
    """The class names of the split `name`, one of SCHEMES."""
    resource = files("metaray.data") / "omniglot_splits" / f"{name}.json"
    values = parse_object(resource.read_bytes(), where=resource.name)
    return {split: values[split] for split in SPLITS}


def _parts(sources: Sequence[Path]) -> list[Path]:
    """The folders and archives to read: `sources` themselves, or what they hold; a folder wins over its archive."""
    found: list[Path] = []
    for source in sources:
        if source.is_dir() and not source.name.startswith(PARTS):
            inside = [next((p for p in (source / part, source / f"{part}.zip") if p.exists()), None) for part in PARTS]
            held = [path for path in inside if path is not None]
            if not held:
                raise InputError(
                    f"{source}: holds none of images_background/, images_evaluation/, images_background.zip and "
                    "images_evaluation.zip"
                )
            found += held
        else:
            found.append(source)
    return found


def _classes(trees: Sequence[FileTree]) -> dict[str, list[ImageFile]]:
    """Class name -> its drawings, both sorted."""
    known = {name for names in published_split("vinyals").values() for name in names}
    classes: dict[str, list[ImageFile]] = {}
    for tree in trees:
        images = [name for name in tree.names if name.lower().endswith(".png")]
        if not images:
            raise InputError(f"{tree.path}: no PNG files in it")
        for name in images:
            class_name = "/".join(name.split("/")[-3:-1])
            if class_name not in known:
                raise _not_omniglot(tree, name, class_name, known)
            classes.setdefault(class_name, []).append(ImageFile(tree, name))
    for class_name, drawings in classes.items():
        owners = {drawing.tree.path for drawing in drawings}
        if len(owners) > 1:
            raise InputError(f"{class_name} is in both {' and '.join(sorted(map(str, owners)))}")
    return dict(sorted(classes.items()))


def _not_omniglot(tree: FileTree, name: str, class_name: str, known: set[str]) -> InputError:
    alphabet = class_name.split("/")[0]
    same_alphabet = [known_name for known_name in known if known_name.startswith(f"{alphabet}/")]
    reason = (
        unknown("Omniglot character", class_name, same_alphabet)
        if same_alphabet
        else (f"expected Alphabet/characterNN/drawing.png, and {class_name!r} is no character of Omniglot")
    )
    return InputError(f"{tree.where(name)}: {reason}")


def _complete_schemes(
    published: Mapping[str, Mapping[Split, list[str]]], class_names: Sequence[str]
) -> tuple[dict[str, dict[Split, list[int]]], tuple[str, ...]]:
    """The schemes of which no class is missing, in class ids; and a note for each other scheme."""
    ids = {name: i for i, name in enumerate(class_names)}
    schemes: dict[str, dict[Split, list[int]]] = {}
    notes = []
    for scheme, splits in published.items():
        names = [name for members in splits.values() for name in members]
        missing = [name for name in names if name not in ids]
        if missing:
            notes.append(
                f"split {scheme!r} left out: {len(missing)} of its {len(names)} classes are missing, "
                f"for instance {missing[0]!r}"
            )
        else:
            schemes[scheme] = {split: sorted(ids[name] for name in members) for split, members in splits.items()}
    return schemes, tuple(notes)
