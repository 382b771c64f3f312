"""A class store of one's own examples, written from Python."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from metaray.data.draws import SPLITS, Split
from metaray.data.preprocessing import Preprocessing, RawInputs
from metaray.data.ragged import Ragged, unpadded
from metaray.data.replacing import check_replaceable
from metaray.data.splits import Fractions, random_splits
from metaray.data.store_columns import Examples
from metaray.data.store_file import write_store
from metaray.data.store_preprocessing import check_prepared
from metaray.errors import InputError, unknown


def write_class_store(
    path: str | Path,
    examples: Mapping[str, RawInputs],
    splits: Mapping[Split, Sequence[str]] | Fractions,
    preprocessing: Preprocessing,
    *,
    seed: int = 0,
    origin: Mapping[str, str] | None = None,
) -> None:
    """Write a class store file for `ClassStore`, atomically, replacing any file at `path`.

    Args:
        path: Path of the file; missing folders are made.
        examples: Raw inputs of each class, by class name, as `preprocessing` reads them: images, rows of numbers,
            texts.
        splits: Names of the classes of meta-train, meta-val and meta-test; or the shares of classes, as in (0.6, 0.2,
            0.2), by which classes are assigned to splits at random.
        preprocessing: Preprocessing that turns raw inputs into examples. Learners keep it; a class of the user's own is
            found again by its import path.
        seed: Seed of the random assignment of classes to splits.
        origin: Notes to store with the file, such as licence and address.

    Raises:
        InputError: If an input cannot be read, `splits` names a class that `examples` lacks, splits overlap, or the
            file cannot be written; the message names the class and the input.

    Example:
        >>> import tempfile
        >>> from metaray.data import ClassStore
        >>> from metaray.data.preprocessing import VectorPreprocessing
        >>> from metaray.data.writing import write_class_store
        >>> flowers = {"rose": [[1, 2], [1, 3]], "lily": [[5, 2], [6, 2], [7, 1]]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/flowers.arrow"
        ...     write_class_store(path, flowers, {"meta-train": ["rose", "lily"]}, VectorPreprocessing(size=2))
        ...     ClassStore(path=path).num_classes("meta-train")
        2
    """
    check_replaceable(Path(path))
    names = list(examples)
    schemes = {split: [names.index(name) for name in chosen] for split, chosen in _chosen(splits, names, seed).items()}
    parts = [_read(preprocessing, name, examples[name]) for name in names]
    if not parts:
        raise InputError(f"{path}: no classes given")
    whole = _joined(parts)
    values = whole.values if isinstance(whole, Ragged) else whole
    shape = (None, *values.shape[1:]) if isinstance(whole, Ragged) else values.shape[1:]
    check_prepared(preprocessing, shape, values.dtype.name, where=str(path))
    write_store(
        Path(path),
        examples=whole,
        counts=[len(part) for part in parts],
        class_names=names,
        schemes={"default": schemes},
        preprocessing=preprocessing,
        origin={"importer": "write_class_store", **(origin or {})},
    )


def _chosen(
    splits: Mapping[Split, Sequence[str]] | Fractions, names: Sequence[str], seed: int
) -> Mapping[Split, Sequence[str]]:
    if not isinstance(splits, Mapping):
        return random_splits(names, splits, seed)
    for split, chosen in splits.items():
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        for name in chosen:
            if name not in names:
                raise unknown(f"class of {split}", name, names)
    return splits


def _read(preprocessing: Preprocessing, name: str, raw: RawInputs) -> Examples:
    try:
        return unpadded(preprocessing.read(raw))
    except InputError as error:
        raise InputError(f"class {name!r}: {error}") from None


def _joined(parts: Sequence[Examples]) -> Examples:
    if not isinstance(parts[0], Ragged):
        return np.concatenate(parts)
    lengths = np.concatenate([part.lengths for part in parts])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Ragged(np.concatenate([part.values for part in parts]), offsets)
