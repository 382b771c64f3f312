"""Classes from the way images lie in folders: a folder per class, below the folders of a given split or not."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from statistics import median
from typing import Literal, NamedTuple

from metaray.data.draws import SPLITS, Split
from metaray.data.file_tree import FileTree
from metaray.data.groups import folder_of
from metaray.data.names import counted, is_image_name, some
from metaray.data.splits import is_plain_split, split_named
from metaray.errors import InputError

Nested = Literal["refuse", "join", "skip"]
ARCHIVES = (".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip")


@dataclass(frozen=True)
class Found:
    """The classes found in a data set.

    Attributes:
        classes: Sorted files of each class, by sorted class names.
        given: Classes of each split, if the data come with splits; otherwise empty. A class may be in several.
        by: What the splits come from, for instance "the folders train, val, test".
        notes: Descriptions of what was skipped, one sentence each.
        groups: Name of each class's group, by class name; None if there are no groups.
    """

    classes: dict[str, list[str]]
    given: dict[Split, list[str]] = field(default_factory=dict)
    by: str = ""
    notes: tuple[str, ...] = ()
    groups: dict[str, str] | None = None

    @property
    def summary(self) -> str:
        """Classes, images a class, and the first names."""
        sizes = sorted(map(len, self.classes.values()))
        images = f"{sizes[0]} / {median(sizes):g} / {sizes[-1]} images a class (fewest / median / most)"
        if sizes[0] == sizes[-1]:
            images = f"{sizes[0]} images a class"
        groups = "" if self.groups is None else f" in {counted(len(set(self.groups.values())), 'group')}"
        return f"{len(self.classes)} classes{groups}, {images}: {some(list(self.classes), 5)}"


class _Sorted(NamedTuple):
    """Files by where they lie. `nested` counts those in folders inside a class folder, by that folder."""

    classes: dict[str, list[str]]
    beside: list[str]
    nested: Counter[str]


def find_classes(
    tree: FileTree, is_image: Callable[[str], bool], *, depth: int = 1, nested: Nested = "refuse"
) -> Found:
    """Find the classes of a tree with a folder for each class.

    A folder that contains everything else is passed through. Folders named like splits ("train", "val", "test") that
    contain the class folders give the splits.

    Args:
        tree: The files.
        is_image: Function that tells whether a file can be decoded; called if names do not tell.
        depth: Number of levels of folders down to the class folders; with 2, classes are called "animals/cat" and
            belong to the group "animals".
        nested: What to do with files in folders inside a class folder.

    Raises:
        InputError: If there are no images, images at other levels than `depth`, or files in folders inside a class
            folder unless `nested` says what they are; the message names them.
    """
    if depth < 1:
        raise InputError(f"--depth {depth}: must be at least 1")
    images = _images(tree, is_image)
    root = _wrapper(images, depth)
    folders = _split_folders(tree, [name.removeprefix(root) for name in images])
    prefixes: dict[str, Split | None] = {root: None}
    if folders:
        prefixes = {f"{root}{top}/": split for top, split in folders.items()}
    parts = {prefix: _sort(tree.names, prefix, depth, join=nested == "join") for prefix in prefixes}
    inside = tuple(prefixes)
    beside = [name for name in tree.names if not name.startswith(inside)]
    beside += [name for part in parts.values() for name in part.beside]
    _check_levels(tree, list(parts.values()), beside, depth, nested)
    classes: dict[str, list[str]] = {}
    for part in parts.values():
        for name, files in part.classes.items():
            classes.setdefault(name, []).extend(files)
    _check_names(tree, classes, depth)
    given = {split: sorted(parts[prefix].classes) for prefix, split in prefixes.items() if split is not None}
    skipped = sum(sum(part.nested.values()) for part in parts.values()) if nested == "skip" else 0
    return Found(
        {name: sorted(classes[name]) for name in sorted(classes)},
        given,
        f"the folders {', '.join(folders)}" if folders else "",
        (*passed_over(tree, beside, skipped), *lookalikes(classes)),
        None if depth == 1 else {name: folder_of(name) for name in sorted(classes)},
    )


def passed_over(tree: FileTree, beside: Sequence[str], skipped: int = 0) -> tuple[str, ...]:
    """Notes on what of the tree is not in any class."""
    notes = list(tree.notes)
    if beside:
        notes.append(f"passed over: {counted(len(beside), 'file')} beside the class folders ({some(list(beside))})")
    if skipped:
        notes.append(f"passed over: {counted(skipped, 'file')} in folders inside class folders, as --nested skip says")
    if tree.clutter:
        notes.append(f"passed over: {counted(len(tree.clutter), 'hidden or system file')} ({some(tree.clutter)})")
    if tree.empty:
        notes.append(f"passed over: {counted(len(tree.empty), 'folder')} without a file ({some(tree.empty)})")
    return tuple(notes)


def lookalikes(names: Mapping[str, object]) -> tuple[str, ...]:
    """A note on classes whose names differ in case or spaces alone."""
    seen: dict[str, str] = {}
    for name in names:
        key = " ".join(name.casefold().split())
        if key in seen:
            return (f"{seen[key]!r} and {name!r} are two classes, though their names differ in case or spaces alone",)
        seen[key] = name
    return ()


def _images(tree: FileTree, is_image: Callable[[str], bool]) -> list[str]:
    """The files that are images by their names; all of them where no name tells, but some can be decoded."""
    if images := [name for name in tree.names if is_image_name(name)]:
        return images
    sample = tree.names[:: max(1, len(tree.names) // 50)]
    if any(map(is_image, sample)):
        return tree.names
    if not tree.names:
        raise InputError(f"{tree.path}: no class in it, not a single file; expected a folder per class with its images")
    kinds = Counter(PurePosixPath(name).suffix.lower() or "no suffix" for name in tree.names)
    listed = ", ".join(f"{count} with {kind}" for kind, count in kinds.most_common(3))
    packed = " Unpack the archives in it first." if any(name.lower().endswith(ARCHIVES) for name in tree.names) else ""
    raise InputError(
        f"{tree.path}: no images in it; the files found are {listed}, for instance {tree.names[0]!r}.{packed}"
    )


def _wrapper(images: Sequence[str], depth: int) -> str:
    """The folder, with a slash at the end, or folders in one another that hold everything; empty if there is none."""
    parts, root = [name.split("/") for name in images], 0
    while len({path[root] for path in parts}) == 1 and min(map(len, parts)) - 1 - root > depth:
        root += 1
    return "".join(f"{folder}/" for folder in parts[0][:root])


def _split_folders(tree: FileTree, images: Sequence[str]) -> dict[str, Split]:
    """The folders of a given split; none if the folders on top are classes."""
    paths = [name.split("/") for name in images]
    tops = sorted({path[0] for path in paths if len(path) > 1})
    splits = {top: split for top in tops if (split := split_named(top)) is not None}
    if len(splits) < 2:
        return {}
    listed = ", ".join(map(repr, splits))
    if others := [top for top in tops if top not in splits]:
        if len({split for top, split in splits.items() if is_plain_split(top)}) < 2:
            return {}
        raise InputError(
            f"{tree.path}: the folders {listed} are named like splits, but {some(list(map(repr, others)))} beside them "
            "are not; import the splits from a folder of their own, or rename those that are classes"
        )
    if len(set(splits.values())) < len(splits):
        raise InputError(f"{tree.path}: the folders {listed} are two for one split; put them together")
    if flat := [path for path in paths if len(path) == 2 and path[0] in splits]:
        raise InputError(
            f"{tree.path}: the folders {listed} are named like splits, but hold images ({'/'.join(flat[0])}) where "
            "class folders are expected; give one of the folders alone, or the classes in a CSV file: --labels FILE"
        )
    return dict(sorted(splits.items(), key=lambda item: SPLITS.index(item[1])))


def _sort(names: Sequence[str], prefix: str, depth: int, *, join: bool) -> _Sorted:
    found = _Sorted({}, [], Counter())
    for name in names:
        if not name.startswith(prefix):
            continue
        path = name.removeprefix(prefix).split("/")
        if len(path) <= depth:
            found.beside.append(name)
            continue
        files = found.classes.setdefault("/".join(path[:depth]), [])
        if len(path) > depth + 1:
            found.nested["/".join(path[: depth + 1])] += 1
        if join or len(path) == depth + 1:
            files.append(name)
    return found


def _check_levels(tree: FileTree, parts: Sequence[_Sorted], beside: Sequence[str], depth: int, nested: Nested) -> None:
    stray = [name for name in beside if is_image_name(name)]
    inner: Counter[str] = sum((part.nested for part in parts), Counter())
    direct = [name for part in parts for files in part.classes.values() for name in files]
    # A README beside the folders of a superclass makes it no class.
    files = len([name for name in direct if is_image_name(name)] if any(map(is_image_name, tree.names)) else direct)
    if stray and not files and not inner:
        _refuse_flat(tree, stray, depth)
    if stray:
        raise InputError(
            f"{tree.path}: {counted(len(stray), 'image')} beside the class folders, for instance {stray[0]!r}; "
            f"put each into the folder of its class, {_levels(depth)} deep (--depth {depth})"
        )
    if inner and nested == "refuse":
        _refuse_nested(tree, inner, files, depth)
    for part in parts:
        for name, members in part.classes.items():
            if not members:
                raise InputError(f"{tree.path}: with --nested skip no image of the class {name!r} is left")


def _refuse_flat(tree: FileTree, stray: Sequence[str], depth: int) -> None:
    tables = [name for name in tree.names if name.lower().endswith((".csv", ".tsv"))]
    hint = f" (such as {tables[0]}, which lies there)" if tables else ""
    lie = "directly in it" if depth == 1 else f"in it, but none {_levels(depth)} deep or deeper (--depth {depth})"
    raise InputError(
        f"{tree.path}: {counted(len(stray), 'image')} {lie}, for instance {stray[0]!r}, and no class folders; expected "
        f"a folder per class, or the classes in a CSV file: --labels FILE{hint}"
    )


def _refuse_nested(tree: FileTree, inner: Counter[str], files: int, depth: int) -> None:
    listed = some([f"{folder!r} ({count})" for folder, count in sorted(inner.items())])
    join = "--nested join counts all that lies in a class folder to its class"
    if files:
        raise InputError(
            f"{tree.path}: {sum(inner.values())} files lie in folders inside class folders, beside {files} that lie "
            f"directly in them: {listed}; {join}, --nested skip leaves them out"
        )
    names = [folder.rpartition("/")[2] for folder in inner]
    if all(map(split_named, names)):
        raise InputError(f"{tree.path}: each class folder holds folders named like splits: {listed}; {join}")
    raise InputError(
        f"{tree.path}: the images lie deeper than {_levels(depth)}, where those of class folders are: {listed}; "
        f"--depth {depth + 1} takes these folders as the classes, with names such as {min(inner)!r}; {join}"
    )


def _check_names(tree: FileTree, classes: Mapping[str, object], depth: int) -> None:
    last = {name.rpartition("/")[2] for name in classes}
    if depth > 1 and len(last) > 1 and all(map(split_named, last)):
        raise InputError(
            f"{tree.path}: with --depth {depth} the classes would be {some(sorted(map(repr, classes)))}: the folders "
            f"inside are named like splits; --depth {depth - 1} --nested join counts them to one class"
        )


def _levels(depth: int) -> str:
    return "1 folder" if depth == 1 else f"{depth} folders"
