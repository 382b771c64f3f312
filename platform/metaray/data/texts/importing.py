"""The importer of texts: read, tokenised, and written as a store of ragged tokens."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from metaray.data.draws import SPLITS, Split
from metaray.data.importing import ImportReport, Progress
from metaray.data.names import counted, some
from metaray.data.preprocessing import TextPreprocessing
from metaray.data.preprocessing.text import told_of_nothing
from metaray.data.ragged import Ragged
from metaray.data.replacing import check_replaceable
from metaray.data.splits import USUAL, Fractions, chosen_splits, given_splits, split_named
from metaray.data.store_file import write_store
from metaray.data.text_encoding import check_encoding, is_blank
from metaray.data.texts.rows import Columns, TextRow, read_rows
from metaray.errors import InputError

TEXTS_PER_BATCH = 1024
Empty = Literal["refuse", "skip"]


def import_texts(
    paths: Sequence[Path],
    out: Path,
    preprocessing: TextPreprocessing,
    *,
    columns: Columns = Columns(),  # noqa: B008 - a tuple
    splits: Mapping[str, Path] | Path | Fractions | None = None,
    seed: int = 0,
    empty: Empty = "refuse",
    encoding: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> ImportReport:
    """Build a class store of tokens from labelled texts.

    Args:
        paths: Paths of CSV files, of files with a JSON object on each line, or of folders with a folder for each class,
            which are combined. Files named like splits (train.csv, val.csv) give the splits, if no class is in two of
            them.
        out: Path of the store to write.
        preprocessing: Preprocessing that turns texts into tokens; the store and every learner keep it.
        columns: Names of the columns of files.
        splits: Splits as for `import_images`; or several schemes by name, each a folder of split files.
        seed: Seed of the random splits.
        empty: Whether to refuse empty texts or to leave them out.
        encoding: Encoding of files that are not UTF-8.
        tell: Function that is called with a line about what was found, before any text is tokenised.
        progress: Function that is called with the numbers of finished and of all texts.

    Raises:
        InputError: If `read_rows` raises it; texts are empty (the message names them); splits overlap or do not fit the
            classes; `out` cannot be written; or there is no tokenizer.
    """
    check_replaceable(out, paths)
    check_encoding(encoding)
    preprocessing.encoded(["a"])  # without the library there is no use in reading anything
    found = [read_rows(path, columns, encoding) for path in paths]
    rows, notes = _named_by_files(paths, [one.rows for one in found])
    notes += [note for one in found for note in one.notes]
    rows = _without_empty(rows, empty, notes)
    rows.sort(key=lambda row: row.label)  # stable: within a class they keep their order
    counts = Counter(row.label for row in rows)
    names = sorted(counts)
    schemes, by = _schemes(rows, names, splits, seed)
    tell(f"found {counted(len(rows), 'text')} of {counted(len(names), 'class', 'classes')}")
    for scheme, parts in schemes.items():
        sizes = " / ".join(str(len(parts[split])) for split in SPLITS)
        tell(f"splits {scheme}: {sizes} classes for {', '.join(SPLITS)}: {by[scheme]}")
    tokens = _tokenised(rows, preprocessing, notes, progress)
    ids = {name: i for i, name in enumerate(names)}
    write_store(
        out,
        examples=tokens,
        counts=[counts[name] for name in names],
        class_names=names,
        schemes={
            scheme: {split: sorted(ids[name] for name in members) for split, members in parts.items()}
            for scheme, parts in schemes.items()
        },
        preprocessing=preprocessing,
        origin={"importer": "text", "source": ", ".join(path.name for path in paths), "splits": "; ".join(by.values())},
        groups=_groups(rows, names) if columns.group else None,
    )
    return ImportReport(out, len(names), len(rows), tuple(schemes), (*notes, *_doubts(rows, counts)))


def _named_by_files(paths: Sequence[Path], parts: Sequence[Sequence[TextRow]]) -> tuple[list[TextRow], list[str]]:
    """All rows, with the splits that the names of their files say, if those share no class; and what to tell of it."""
    rows = [row for part in parts for row in part]
    named = [split_named(path.stem) for path in paths]
    if len(paths) < 2 or None in named or len(set(named)) < len(named) or any(row.split for row in rows):
        return rows, []
    files = Counter(label for part in parts for label in {row.label for row in part})
    if shared := sorted(label for label, count in files.items() if count > 1):
        told = f"{len(shared)} of {len(files)} classes are in several files ({some(shared)})"
        return rows, [f"the files are taken together, although they are called like splits: {told}"]
    return [row._replace(split=split) for part, split in zip(parts, named, strict=True) for row in part], []


def _without_empty(rows: list[TextRow], empty: Empty, notes: list[str]) -> list[TextRow]:
    bad = [row for row in rows if is_blank(row.text)]
    if not bad:
        return rows
    if empty == "refuse":
        raise InputError(f"{bad[0].where}: the text is empty ({len(bad)} in all); --empty skip leaves such out")
    notes.append(f"left out: {counted(len(bad), 'empty text')}, the first at {bad[0].where}")
    kept = [row for row in rows if not is_blank(row.text)]
    if not kept:
        raise InputError(f"{bad[0].where}: all {len(bad)} texts are empty")
    return kept


def _schemes(
    rows: Sequence[TextRow], names: Sequence[str], splits: Mapping[str, Path] | Path | Fractions | None, seed: int
) -> tuple[dict[str, dict[Split, list[str]]], dict[str, str]]:
    """The classes of every split of every scheme, and how each scheme came about."""
    if isinstance(splits, Mapping):
        made = {scheme: chosen_splits(names, folder, seed) for scheme, folder in splits.items()}
        return {scheme: one for scheme, (one, _) in made.items()}, {scheme: by for scheme, (_, by) in made.items()}
    given: dict[Split, set[str]] = {}
    for row in rows:
        if row.split is not None:
            given.setdefault(row.split, set()).add(row.label)
    if splits is None and len(given) > 1:
        sorted_names = {split: sorted(members) for split, members in given.items()}
        found, by = given_splits(sorted_names, seed, where=rows[0].where, by="the data's own splits")
    else:
        found, by = chosen_splits(names, splits or USUAL, seed)
    return {"default": found}, {"default": by}


def _tokenised(
    rows: Sequence[TextRow], preprocessing: TextPreprocessing, notes: list[str], progress: Progress | None
) -> Ragged:
    """The tokens of all texts, with notes on those that were cut, or are strange to the tokenizer."""
    parts: list[NDArray[np.int32]] = []
    strange: list[TextRow] = []
    cut = 0
    for start in range(0, len(rows), TEXTS_PER_BATCH):
        batch = rows[start : start + TEXTS_PER_BATCH]
        found = preprocessing.encoded([row.text for row in batch])
        for place in found.nothing:
            raise InputError(f"{batch[place].where}: {told_of_nothing(batch[place].text)}; leave it out")
        parts += found.rows
        strange += [batch[place] for place in found.strange]
        cut += len(found.cut)
        if progress is not None:
            progress(len(parts), len(rows))
    if cut:
        notes.append(preprocessing.told_of_cut(cut, len(rows)))
    if strange:
        told = counted(len(strange), "text holds", "texts hold")
        notes.append(
            f"{told} nothing that the tokenizer knows ({strange[0].text[:60]!r} in {strange[0].where}): all such look "
            "alike to the encoder"
        )
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return Ragged(np.concatenate(parts), offsets)


def _groups(rows: Sequence[TextRow], names: Sequence[str]) -> list[str]:
    """The group of each class.

    Raises:
        InputError: A class without a group, or in two.
    """
    first: dict[str, TextRow] = {}
    for row in rows:
        other = first.setdefault(row.label, row)
        if not row.group:
            raise InputError(f"{row.where}: no group")
        if row.group != other.group:
            theirs = f"{other.group!r} in {other.where}"
            raise InputError(f"{row.where}: the class {row.label!r} has the group {row.group!r}, but {theirs}")
    return [first[name].group for name in names]


def _doubts(rows: Sequence[TextRow], counts: Mapping[str, int]) -> list[str]:
    """What makes tasks impossible, or scores too good."""
    notes = []
    if alone := sorted(name for name, count in counts.items() if count == 1):
        told = counted(len(alone), "class has", "classes have")
        notes.append(
            f"{told} one text only ({some(alone)}): a task needs one to learn from and one to ask, so has none"
        )
    twice = sum(count - 1 for count in Counter((row.label, row.text) for row in rows).values())
    if twice:
        told = counted(twice, "text stands", "texts stand")
        notes.append(f"{told} more than once in its class, to the letter: a task may ask what it learned from")
    labels: dict[str, set[str]] = {}
    for row in rows:
        labels.setdefault(row.text, set()).add(row.label)
    if both := sorted(text for text, found in labels.items() if len(found) > 1):
        told = counted(len(both), "text stands", "texts stand")
        notes.append(f"{told} in more than one class ({both[0][:60]!r} in {some(sorted(labels[both[0]]))})")
    return notes
