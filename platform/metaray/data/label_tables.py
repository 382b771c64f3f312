"""Classes from CSV files: a row an image, with its file, its class and perhaps its split."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from metaray.data.draws import SPLITS, Split
from metaray.data.file_tree import FileTree
from metaray.data.layout import Found, lookalikes, passed_over
from metaray.data.names import check_characters, clean_path, counted, is_image_name, one_spelling, some
from metaray.data.splits import split_named
from metaray.data.text_encoding import decoded, long_cells
from metaray.errors import InputError

# What people call the columns, best first; compared without case, spaces and underscores.
FILE_COLUMNS = (
    "file",
    "filename",
    "filepath",
    "path",
    "image",
    "imagename",
    "imagepath",
    "imagefile",
    "img",
    "imageid",
)
LABEL_COLUMNS = ("label", "class", "classname", "category", "labelname", "target", "species", "y")
SPLIT_COLUMNS = ("split", "set", "subset", "partition")
# Not "group" or "domain", which as often say something of the image.
GROUP_COLUMNS = ("superclass", "supercategory", "superlabel", "coarselabel", "alphabet")
SEPARATORS = ",;\t|"


class _Row(NamedTuple):
    """One image: where its row stands, its file as written there, its class, its split and the group of its class."""

    where: str
    file: str
    label: str
    split: Split | None
    group: str | None


class _Columns(NamedTuple):
    """Places of the columns."""

    file: int
    label: int
    split: int | None
    group: int | None


def read_labels(
    tree: FileTree, tables: Sequence[Path], *, columns: Sequence[str] = (), encoding: str | None = None
) -> Found:
    """Find the classes of a tree by the rows of CSV files.

    A file may be written with more or fewer folders than it has in the tree, and without its suffix, as long as it is
    clear which is meant. Several tables called like splits (train.csv, val.csv, test.csv) give the splits; so does a
    column. A column of superclasses gives the groups, where each class has one.

    Args:
        tree: The images.
        tables: The files, beside the tree or in it; or a folder that holds train.csv, val.csv and test.csv.
        columns: The names of the columns of file, class and (optional, an empty name for none) split and group; none
            looks for the usual ones.
        encoding: Encoding of tables that are not in UTF-8.

    Raises:
        InputError: If there are no such table, columns or file; a file fits several, or stands in two rows; a cell is
            empty; a split is unknown; or a class is in two groups, where `columns` name that of groups. The message
            names the table and line.
    """
    if columns and not 2 <= len(columns) <= 4:
        raise InputError(f"--columns {','.join(columns)!r}: give the columns of file and class, as in filename,label")
    paths = [path for table in tables for path in _tables(table)]
    splits = [split_named(path.stem) for path in paths]
    by_table = len(paths) > 1 and None not in splits and len(set(splits)) == len(paths)
    rows: list[_Row] = []
    for path, split in zip(paths, splits, strict=True):
        rows += _rows(path, _content(tree, path, encoding), columns, split if by_table else None)
    groups = _groups(rows, required=len(columns) == 4)
    if by_table:
        return _found(tree, rows, f"the tables {', '.join(path.name for path in paths)}", groups)
    return _found(tree, rows, "the splits in the table" if len({row.split for row in rows}) > 1 else "", groups)


def _tables(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    try:
        tables = [one for one in path.iterdir() if one.suffix.lower() == ".csv"]
    except OSError as error:
        raise InputError(f"{path}: can't read the labels: {error.strerror}") from None
    named = [table for split in SPLITS for table in sorted(tables) if split_named(table.stem) == split]
    if not named:
        raise InputError(f"--labels {path}: a folder without train.csv, val.csv and test.csv; name the CSV file itself")
    return named


def _content(tree: FileTree, path: Path, encoding: str | None) -> str:
    """The text of a table; one that is not on disk may be in the tree."""
    try:
        inside = not path.exists() and clean_path(path.as_posix()) in tree.names
        raw = tree.read(clean_path(path.as_posix())) if inside else path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: can't read the labels: {error.strerror}") from None
    return decoded(raw, str(path), encoding)


def _rows(path: Path, text: str, names: Sequence[str], table_split: Split | None) -> list[_Row]:
    header, separator = _header(path, text, names)
    columns = _columns(path, header, names)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        with long_cells():
            lines = [(f"{path}, line {reader.line_num}", cells) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not a CSV file: {error}") from None
    if len(lines) < 2:
        raise InputError(f"{path}: no rows below its header {separator.join(header)!r}")
    rows = [_row(cells, len(header), columns, where) for where, cells in lines[1:]]
    return [row._replace(split=table_split) for row in rows] if table_split else rows


def _row(cells: Sequence[str], width: int, columns: _Columns, where: str) -> _Row:
    if len(cells) != width:
        raise InputError(f"{where}: {len(cells)} cells in a table of {width} columns")
    file, label = cells[columns.file].strip(), one_spelling(cells[columns.label].strip())
    group = None if columns.group is None else one_spelling(cells[columns.group].strip())
    if not file or not label:
        raise InputError(f"{where}: no {'label' if file else 'file'}")
    check_characters(label, where)
    check_characters(group or "", where)
    split = None
    if columns.split is not None and (split := split_named(cells[columns.split])) is None:
        raise InputError(f"{where}: the split {cells[columns.split]!r} is none of train, val and test")
    return _Row(where, file, label, split, group)


def _header(path: Path, text: str, names: Sequence[str]) -> tuple[list[str], str]:
    """The columns, and what separates them: what gives the columns looked for."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    wanted = [set(names[:1]) or set(FILE_COLUMNS), set(names[1:2]) or set(LABEL_COLUMNS)]
    for separator in SEPARATORS:
        try:
            header = [cell.strip() for cell in next(csv.reader([first], delimiter=separator, strict=True), [])]
        except csv.Error:
            continue
        keys = {cell if names else _key(cell) for cell in header}
        if all(keys & one for one in wanted):
            return header, separator
    looked = " and ".join(names[:2]) if names else "the file (file, filename, ...) and the class (label, class, ...)"
    raise InputError(
        f"{path}: its first line {first[:200]!r} does not name the columns of {looked}; "
        "--columns FILE,LABEL says how they are called"
    )


def _columns(path: Path, header: Sequence[str], names: Sequence[str]) -> _Columns:
    if twice := [name for i, name in enumerate(header) if name in header[:i]]:
        raise InputError(f"{path}: has the column {twice[0]!r} twice")
    if names:
        if missing := [name for name in names if name and name not in header]:
            raise InputError(f"{path}: lacks the column {missing[0]!r}; its columns are {', '.join(header)}")
        places = [header.index(name) if name else None for name in (*names, "", "")]
        assert places[0] is not None and places[1] is not None, names
        return _Columns(places[0], places[1], places[2], places[3])
    known = (FILE_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS, GROUP_COLUMNS)
    files, labels, splits, groups = ([name for one in names for name in header if _key(name) == one] for names in known)
    for what, several in (("classes", labels), ("splits", splits)):
        if len(several) > 1:
            raise InputError(
                f"{path}: {several[0]!r} and {several[1]!r} may both be the column of {what}; say which with "
                "--columns FILE,LABEL or --columns FILE,LABEL,SPLIT"
            )
    split, group = (header.index(found[0]) if found else None for found in (splits, groups))
    return _Columns(header.index(files[0]), header.index(labels[0]), split, group)


def _key(column: str) -> str:
    return column.casefold().replace("_", "").replace(" ", "")


def _groups(rows: Sequence[_Row], *, required: bool) -> dict[str, str] | None:
    """The group of each class; None where the table has none, or it is the images that it groups.

    Raises:
        InputError: A class without a group, or in two, where groups are required.
    """
    first: dict[str, _Row] = {}
    for row in rows:
        other = first.setdefault(row.label, row)
        if row.group and row.group == other.group:
            continue
        if not required:
            return None
        if not row.group:
            raise InputError(f"{row.where}: no group")
        raise InputError(
            f"{row.where}: the class {row.label!r} has the group {row.group!r}, but {other.group!r} in {other.where}"
        )
    return {label: row.group or "" for label, row in first.items()}


def _found(tree: FileTree, rows: Sequence[_Row], by: str, groups: dict[str, str] | None) -> Found:
    index = _index(tree)
    owner: dict[str, _Row] = {}
    missing: list[_Row] = []
    for row in rows:
        name = _locate(tree, index, row)
        if name is None:
            missing.append(row)
        elif name in owner:
            raise InputError(f"{row.where}: {name!r} stands in {owner[name].where} already; give each file one row")
        else:
            owner[name] = row
    if missing:
        raise InputError(
            f"{missing[0].where}: no file {missing[0].file!r} in {tree.path}; {len(missing)} of {len(rows)} are missing"
        )
    classes: dict[str, list[str]] = {}
    given: dict[Split, set[str]] = {}
    for name, row in sorted(owner.items()):
        classes.setdefault(row.label, []).append(name)
        if by and row.split is not None:
            given.setdefault(row.split, set()).add(row.label)
    left = [name for name in tree.names if name not in owner and is_image_name(name)]
    notes = (f"passed over: {counted(len(left), 'image')} without a row ({some(left)})",) if left else ()
    return Found(
        dict(sorted(classes.items())),
        {split: sorted(names) for split, names in given.items()},
        by,
        (*notes, *passed_over(tree, ()), *lookalikes(classes)),
        groups,
    )


def _index(tree: FileTree) -> dict[str, list[str]]:
    """Files by their last part, with and without the suffix of an image."""
    index: dict[str, list[str]] = {}
    for name in tree.names:
        last = PurePosixPath(name)
        for key in {last.name, last.stem if is_image_name(name) else last.name}:
            index.setdefault(key, []).append(name)
    return index


def _locate(tree: FileTree, index: Mapping[str, Sequence[str]], row: _Row) -> str | None:
    """The file that a row means; None if there is none.

    Raises:
        InputError: If it may be one or another.
    """
    wanted = clean_path(row.file.replace("\\", "/"))
    near = index.get(wanted.rpartition("/")[2], ())
    forms = {name: {name, name.removesuffix(PurePosixPath(name).suffix)} for name in near}
    exact = [name for name in near if name == wanted] or [name for name in near if wanted in forms[name]]
    found = exact or [name for name in near if any(_ends_alike(form, wanted) for form in forms[name])]
    if len(found) > 1:
        raise InputError(f"{row.where}: {row.file!r} may be {some(list(map(repr, found)))} in {tree.path}; write more")
    return found[0] if found else None


def _ends_alike(one: str, other: str) -> bool:
    """Whether one path is the end of the other."""
    short, long = sorted((one, other), key=len)
    return long.endswith(f"/{short}") or short == long
