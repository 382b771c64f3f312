"""Texts with their labels: rows of CSV files, lines of JSON, or files in a folder per class."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metaray.data.archives import open_tree
from metaray.data.draws import Split
from metaray.data.label_tables import LABEL_COLUMNS, SEPARATORS, SPLIT_COLUMNS
from metaray.data.names import check_characters, counted, one_spelling, some
from metaray.data.splits import split_named
from metaray.data.text_encoding import decoded, halves, long_cells
from metaray.errors import InputError, unknown
from metaray.json_text import once_each

TEXT_COLUMNS = ("text", "sentence", "utterance", "query", "question", "content", "document", "body")
"""Usual names of the column of texts, best first; compared without case, spaces and underscores."""
LINES = (".jsonl", ".ndjson")
TABLES = (".csv", ".tsv", ".txt")
MOST_LABEL = 200


class Columns(NamedTuple):
    """Names of the columns of a file of texts; empty names are looked up (text, label, split) or unused (group).

    Attributes:
        text: Name of the column of texts.
        label: Name of the column of the class labels.
        split: Name of the column with the meta-split of each row's class.
        group: Name of the column with the group of each row's class, such as a domain.
    """

    text: str = ""
    label: str = ""
    split: str = ""
    group: str = ""


class TextRow(NamedTuple):
    """One labelled text.

    Attributes:
        where: Place of the text, for messages.
        text: The text.
        label: Class of the text.
        split: Meta-split of the text's class, if the data name it.
        group: Group of the text's class, if the data name it; otherwise empty.
    """

    where: str
    text: str
    label: str
    split: Split | None = None
    group: str = ""


class FoundTexts(NamedTuple):
    """The texts that a reader found.

    Attributes:
        rows: Rows in the order of the files.
        notes: Messages for the user, one sentence each.
    """

    rows: list[TextRow]
    notes: tuple[str, ...] = ()


def read_rows(path: Path, columns: Columns, encoding: str | None) -> FoundTexts:
    """Read the labelled texts of a file or a folder.

    Args:
        path: Path of a CSV file, of a file with a JSON object on each line (`LINES`), of a folder with a folder of text
            files for each class, or of an archive of that.
        columns: Names of the file's columns.
        encoding: Encoding of files that are not UTF-8.

    Raises:
        InputError: If there is no such file or column, a label is empty, or a split is unknown. The message names the
            path and line.
    """
    suffix = path.suffix.lower()
    if path.is_file() and suffix in (*LINES, *TABLES):
        rows = _lines(path, columns, encoding) if suffix in LINES else _table(path, columns, encoding)
        if not rows:
            raise InputError(f"{path}: holds no texts")
        return FoundTexts(rows)
    if columns != Columns():
        raise InputError(f"{path}: columns are named, but this is no file of {', '.join((*LINES, *TABLES))}")
    return _files(path, encoding)


def _content(path: Path, encoding: str | None) -> str:
    try:
        return decoded(path.read_bytes(), str(path), encoding)
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from None


def _table(path: Path, columns: Columns, encoding: str | None) -> list[TextRow]:
    text = _content(path, encoding)
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(SEPARATORS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[TextRow] = []
    header: list[str] | None = None
    try:
        for number, cells in _numbered(reader):
            where = f"{path}, line {number}"
            if header is None:
                header = [cell.strip() for cell in cells]
                chosen = _chosen(header, columns, str(path))
                if twice := [name for name in chosen if name and header.count(name) > 1]:
                    raise InputError(f"{where}: several columns are called {twice[0]!r}; give each a name of its own")
            elif len(cells) != len(header):
                raise InputError(f"{where}: {counted(len(cells), 'cell')} in a table of {len(header)} columns")
            else:
                rows.append(_row(dict(zip(header, cells, strict=True)), chosen, where))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not a CSV file: {error}") from None
    return rows


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file that hold something, and the lines they end in."""
    with long_cells():
        for cells in reader:
            if any(map(str.strip, cells)):
                yield reader.line_num, cells


def _lines(path: Path, columns: Columns, encoding: str | None) -> list[TextRow]:
    rows: list[TextRow] = []
    for number, line in enumerate(_content(path, encoding).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            tree = json.loads(line, object_pairs_hook=once_each)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not a line of JSON: {error}") from None
        if not isinstance(tree, dict):
            raise InputError(f"{where}: not a JSON object, but {line[:80]!r}")
        rows.append(_row(tree, _chosen(list(tree), columns, where), where))
    return rows


def _chosen(names: Sequence[str], columns: Columns, where: str) -> Columns:
    """The columns as the file calls them."""
    for name in columns:
        if name and name not in names:
            raise InputError(f"{where}: {unknown('column', name, names)}")
    text = columns.text or _usual(names, TEXT_COLUMNS)
    label = columns.label or _usual(names, LABEL_COLUMNS)
    for what, found in (("text", text), ("label", label)):
        if not found:
            listed = some([repr(name) for name in names], 8) or "none"
            raise InputError(f"{where}: no column of the {what} is found; its columns are {listed}: give --{what} NAME")
    if text == label:
        raise InputError(f"{where}: {text!r} is the column of the texts, and can't be that of their labels: give both")
    return Columns(text, label, columns.split or _usual(names, SPLIT_COLUMNS), columns.group)


def _usual(names: Sequence[str], usual: Sequence[str]) -> str:
    keys = {name.casefold().replace("_", "").replace(" ", ""): name for name in names}
    return next((keys[name] for name in usual if name in keys), "")


def _row(cells: Mapping[str, Any], columns: Columns, where: str) -> TextRow:
    text, label, group = cells[columns.text], cells[columns.label], cells.get(columns.group, "")
    if not isinstance(text, str):
        raise InputError(f"{where}: {columns.text!r} is {text!r}, not a text")
    if halves(text):
        raise InputError(f"{where}: {columns.text!r} holds half of a surrogate pair, which is no character")
    if not isinstance(label, str | int) or not (label := one_spelling(str(label).strip())):
        raise InputError(f"{where}: {columns.label!r} is {label!r}, not a label")
    check_characters(label, where)
    if len(label) > MOST_LABEL:
        raise InputError(f"{where}: the label {label[:40]!r}... has {len(label)} letters; is this the column of texts?")
    split = None
    if columns.split and (split := split_named(str(cells[columns.split]))) is None:
        raise InputError(f"{where}: the split {cells[columns.split]!r} is none of train, val and test")
    return TextRow(where, text, label, split, one_spelling(str(group).strip()))


def _files(path: Path, encoding: str | None) -> FoundTexts:
    """A folder per class, perhaps in folders of the splits, with a file per text."""
    with open_tree(path, encoding) as tree:
        names = [name for name in tree.names if name.lower().endswith(".txt")]
        left = [name for name in tree.names if name not in set(names)]
        if not names:
            raise InputError(f"{path}: no texts in it: expected a folder per class with a .txt file per text")
        if beside := [name for name in names if "/" not in name]:
            raise InputError(
                f"{path}: {beside[0]!r} lies beside the class folders; put each text into that of its class"
            )
        tops = {name.partition("/")[0] for name in names}
        by_split = len(tops) > 1 and all(map(split_named, tops))
        rows = list(_in_folders(tree, names, by_split, encoding))
    notes = (f"passed over: {counted(len(left), 'file')} that are no .txt ({some(left)})",) if left else ()
    return FoundTexts(rows, notes)


def _in_folders(tree: Any, names: Sequence[str], by_split: bool, encoding: str | None) -> Iterator[TextRow]:
    for name in names:
        folder, _, _ = name.rpartition("/")
        top, _, rest = folder.partition("/")
        if by_split and not rest:
            raise InputError(f"{tree.where(name)}: lies in the folder of a split, but in that of no class")
        split, label = (split_named(top), rest) if by_split else (None, folder)
        text = decoded(tree.read(name), tree.where(name), encoding)
        yield TextRow(tree.where(name), text, one_spelling(label), split)
