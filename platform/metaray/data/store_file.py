"""The class store's file: one Arrow IPC file, examples sorted by class, read zero-copy.

One record batch with the columns `x` (a list, one example; see `store_columns`), `class_id` (int32), and perhaps `raw`
(what an encoder made each example of; see `store_raw`). Everything else is one JSON object in the schema metadata under
the key `metaray`, described by `StoreMeta`.
"""

import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from metaray.config import Config
from metaray.data.arrow_numbers import numbers_in
from metaray.data.draws import Split
from metaray.data.groups import ClassGroups
from metaray.data.preprocessing import Preprocessing
from metaray.data.ragged import FeatureShape, Ragged, shape_text
from metaray.data.store_columns import Examples, column_of, column_type, examples_in
from metaray.data.store_preprocessing import Named, StoredPreprocessing, stored
from metaray.data.store_raw import RAW, RawColumn
from metaray.errors import InputError
from metaray.json_text import parse_object

METADATA_KEY = b"metaray"
FORMAT_VERSION = 1
HASH_BLOCK_ROWS = 4096
REMEDY = "import the data again (metaray data import), or copy the file again from where it is whole"

Schemes = Mapping[str, Mapping[Split, Sequence[int]]]


class StoreMeta(Config):
    """The metadata of a store file, in its Arrow schema.

    Attributes:
        version: Version of the file format.
        feature_shape: Shape of one example; its first axis is None if examples are ragged.
        dtype: NumPy data type of the examples, by name.
        class_names: Unique names of the classes; the position is the class id.
        counts: Number of examples of each class.
        schemes: Class ids of each meta-split of each split scheme, by name; disjoint within a scheme.
        preprocessing: Preprocessing that turned raw inputs into the examples; one of the user's own by its import path,
            see `store_preprocessing`.
        origin: Notes (importer, source, licence), which the fingerprint does not cover.
        fingerprint: SHA-256 (hex) over all of the above except the origin, and over the examples.
        groups: Groups of the classes, with a fingerprint of their own, so that the same examples with and without
            groups are the same data. None (omitted from the JSON) without groups.
        raw: Column of the raw inputs that the examples were made of, with a fingerprint of its own; None (omitted from
            the JSON) without one.
    """

    version: int
    feature_shape: FeatureShape
    dtype: str
    class_names: tuple[str, ...]
    counts: tuple[int, ...]
    schemes: dict[str, dict[Split, tuple[int, ...]]]
    preprocessing: StoredPreprocessing
    origin: dict[str, str]
    fingerprint: str
    groups: ClassGroups | None = Field(default=None, exclude_if=lambda groups: groups is None)
    raw: RawColumn | None = Field(default=None, exclude_if=lambda raw: raw is None)


@dataclass(frozen=True)
class StoreFile:
    """An open store file. Its arrays are read-only views of the memory-mapped file.

    Attributes:
        path: Path of the file.
        meta: Metadata of the file.
        examples: Examples [examples, *feature], or ragged.
        offsets: Offsets [classes + 1] int64 of the classes; class c has rows offsets[c] .. offsets[c + 1] - 1.
        raw: Raw input of each example, if the store holds them.
    """

    path: Path
    meta: StoreMeta
    examples: Examples
    offsets: NDArray[np.int64]
    raw: Examples | None = None


def check_writable(path: Path) -> None:
    """Check, before any work is done, that `path` can be written.

    Raises:
        InputError: If the path is a folder, or its (nearest existing) folder cannot be written.
    """
    if path.is_dir():
        raise InputError(f"{path}: can't write there, it is a folder")
    folder = path.absolute().parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{path}: can't write to the folder {folder}: {error.strerror}") from None


def write_store(
    path: Path,
    *,
    examples: Examples,
    counts: Sequence[int],
    class_names: Sequence[str],
    schemes: Schemes,
    preprocessing: Preprocessing | Named,
    origin: Mapping[str, str],
    groups: Sequence[str] | None = None,
    raw: Examples | None = None,
) -> None:
    """Write a store file atomically, replacing any file at `path`.

    Args:
        path: Path of the file; missing folders are made.
        examples: Examples [examples, *feature] or ragged, sorted by class.
        counts: Number of examples of each class.
        class_names: Unique names of the classes.
        schemes: Class ids of each meta-split of each split scheme, by name.
        preprocessing: Preprocessing that turned raw inputs into the examples.
        origin: Notes to store with the file.
        groups: Name of each class's group; None without groups.
        raw: Raw input of each example, to be stored as well.

    Raises:
        InputError: If splits overlap, ids or counts do not fit, a `preprocessing` of the user's own says that examples
            have another shape or type, or the path cannot be written.
    """
    check_writable(path)
    shape: FeatureShape = (None, *examples.values.shape[1:]) if isinstance(examples, Ragged) else examples.shape[1:]
    dtype = examples.values.dtype.name if isinstance(examples, Ragged) else examples.dtype.name
    meta = StoreMeta(
        version=FORMAT_VERSION,
        feature_shape=shape,
        dtype=dtype,
        class_names=tuple(class_names),
        counts=tuple(counts),
        schemes={name: {split: tuple(ids) for split, ids in scheme.items()} for name, scheme in schemes.items()},
        preprocessing=stored(preprocessing),
        origin=dict(origin),
        fingerprint="",
        groups=None if groups is None else ClassGroups.of(groups),
        raw=None if raw is None else RawColumn.of(raw),
    )
    _check_meta(meta, rows=len(examples), where=str(path))
    meta = meta.model_copy(update={"fingerprint": _fingerprint(meta, examples)})
    _replace(path, examples, meta, raw)


def read_store(path: Path, *, verify: bool = False) -> StoreFile:
    """Open a store, memory-mapped.

    Args:
        path: Path of the file.
        verify: Whether to read every example and compare with the fingerprint. `metaray.data.verified` records where
            that was done.

    Raises:
        InputError: If the file is missing, truncated, not a store, of another format version, inconsistent, or (with
            `verify`) changed; the message names it.
    """
    if not os.path.isfile(path):  # noqa: PTH113 - pathlib's raises for names that are too long
        raise InputError(f"{path}: no such class store" + (" (it is a folder)" if os.path.isdir(path) else ""))  # noqa: PTH112
    meta, batch = _read_arrow(path)
    _check_meta(meta, rows=batch.num_rows, where=str(path))
    offsets = np.concatenate([[0], np.cumsum(meta.counts)]).astype(np.int64)
    examples = _examples(batch, meta, offsets, path)
    raw = _raw(batch, meta, path, verify=verify)
    if verify and _fingerprint(meta, examples) != meta.fingerprint:
        raise InputError(
            f"{path}: damaged: its examples or their description don't match its fingerprint {meta.fingerprint}; "
            f"{REMEDY}"
        )
    return StoreFile(path, meta, examples, offsets, raw)


def _read_arrow(path: Path) -> tuple[StoreMeta, Any]:
    """The file's description and its record batch."""
    try:
        with pa.memory_map(str(path)) as mapped:
            reader = pa.ipc.open_file(mapped)
            meta = _parse_meta(reader.schema.metadata or {}, path)
            if reader.num_record_batches != 1 or reader.schema.names[:2] != ["x", "class_id"]:
                raise InputError(f"{path}: not a class store: its columns are {reader.schema.names}")
            batch = reader.get_batch(0)
            batch.validate()
    except InputError:
        raise
    # Arrow's own errors, and what Python makes of a name or number in a damaged file.
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: not a class store, or a truncated one ({first_line}); {REMEDY}") from None
    return meta, batch


def _examples(batch: Any, meta: StoreMeta, offsets: NDArray[np.int64], path: Path) -> Examples:
    """The record batch's examples as a view, after checking that it holds what the metadata says."""
    types = [field.type for field in batch.schema][:2]
    expected = [column_type(meta.feature_shape, meta.dtype), pa.int32()]
    if types != expected or batch.column(0).null_count or batch.column(1).null_count:
        shape = shape_text(meta.feature_shape) if None in meta.feature_shape else meta.feature_shape
        raise InputError(f"{path}: damaged: column types {types} are not those of {shape} {meta.dtype}; {REMEDY}")
    if not np.array_equal(numbers_in(batch.column(1)), np.repeat(np.arange(len(meta.counts)), np.diff(offsets))):
        raise InputError(f"{path}: damaged: the examples are not sorted by class as its counts say; {REMEDY}")
    try:
        return examples_in(batch.column(0), meta.feature_shape)
    except InputError as error:
        raise InputError(f"{path}: damaged: {error}; {REMEDY}") from None


def _raw(batch: Any, meta: StoreMeta, path: Path, *, verify: bool) -> Examples | None:
    """What the examples were made of, where the store has it."""
    if meta.raw is None:
        return None
    try:
        found = meta.raw.inputs_in(batch)
        if verify:
            meta.raw.check(found)
    except InputError as error:
        raise InputError(f"{path}: damaged: {error}; {REMEDY}") from None
    return found


def _replace(path: Path, examples: Examples, meta: StoreMeta, raw: Examples | None) -> None:
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
        os.close(handle)
        try:
            _write_arrow(Path(temporary), examples, meta, raw)
            _read_back(Path(temporary), path)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink()
            raise
    except OSError as error:
        raise InputError(f"{path}: can't write the store: {error}") from None


def _read_back(written: Path, path: Path) -> None:
    try:
        read_store(written, verify=True)
    except InputError as error:
        what = str(error).removeprefix(f"{written}: ")
        raise InputError(f"{path}: what was written does not read back, so nothing is left of it: {what}") from None


def _write_arrow(path: Path, examples: Examples, meta: StoreMeta, raw: Examples | None) -> None:
    class_id = pa.array(np.repeat(np.arange(len(meta.counts), dtype=np.int32), meta.counts))
    columns = {"x": column_of(examples), "class_id": class_id}
    columns |= {} if raw is None else {RAW: column_of(raw)}
    fields = [(name, column.type) for name, column in columns.items()]
    schema = pa.schema(fields, {METADATA_KEY: meta.model_dump_json()})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(list(columns.values()), schema=schema))


def _parse_meta(metadata: Mapping[bytes, bytes], path: Path) -> StoreMeta:
    if METADATA_KEY not in metadata:
        raise InputError(f"{path}: an Arrow file, but not a class store of metaray")
    try:
        values = parse_object(metadata[METADATA_KEY], where="its metadata")
    except InputError as error:
        raise InputError(f"{path}: damaged: {error}; {REMEDY}") from None
    if values.get("version") != FORMAT_VERSION:
        raise InputError(
            f"{path}: format version {values.get('version')!r}, but this metaray reads version {FORMAT_VERSION}; "
            "import the data again"
        )
    return StoreMeta.parse(values, where=str(path))


def _check_meta(meta: StoreMeta, *, rows: int, where: str) -> None:
    names = meta.class_names
    if len(set(names)) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise InputError(f"{where}: two classes are named {twice!r}")
    if len(meta.counts) != len(names) or min(meta.counts, default=0) < 1 or sum(meta.counts) != rows:
        raise InputError(
            f"{where}: {len(names)} class names, {len(meta.counts)} counts (each at least 1) that sum to "
            f"{sum(meta.counts)}, and {rows} examples don't fit together"
        )
    if meta.groups is not None and len(meta.groups.names) != len(names):
        raise InputError(f"{where}: {len(meta.groups.names)} groups for {len(names)} classes: each class has one")
    first, *rest = meta.feature_shape or (1,)
    if None in rest:
        told = shape_text(meta.feature_shape)
        raise InputError(f"{where}: of an example's shape only the first axis may differ, not as in {told}")
    if any(size is not None and size < 1 for size in (first, *rest)):
        raise InputError(f"{where}: an example of shape {meta.feature_shape} is empty")
    for scheme, splits in meta.schemes.items():
        check_disjoint(splits, names, where=f"{where}: split scheme {scheme!r}")


def check_disjoint(
    splits: Mapping[Split, Sequence[int]], class_names: Sequence[str], *, where: str, many: str = "classes"
) -> None:
    """Check that the splits of one scheme are disjoint; `many` is the noun for the classes.

    Raises:
        InputError: If a class id is out of range, or a class is listed twice; the message names the classes.
    """
    owner: dict[int, Split] = {}
    for split, ids in splits.items():
        if bad := [c for c in ids if not 0 <= c < len(class_names)]:
            raise InputError(f"{where}: {split} lists class id {bad[0]}, but the ids are 0 .. {len(class_names) - 1}")
        if shared := [c for c in ids if c in owner]:
            listed = ", ".join(repr(class_names[c]) for c in shared[:5]) + (", ..." if len(shared) > 5 else "")
            raise InputError(f"{where}: {owner[shared[0]]} and {split} overlap in {len(shared)} {many}: {listed}")
        if len(set(ids)) != len(ids):
            twice = Counter(ids).most_common(1)[0][0]
            raise InputError(f"{where}: {split} lists {class_names[twice]!r} twice")
        owner |= dict.fromkeys(ids, split)


def _fingerprint(meta: StoreMeta, examples: Examples) -> str:
    described = meta.model_dump(mode="json", exclude={"origin", "fingerprint", "groups", "raw"})
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    if isinstance(examples, Ragged):
        digest.update(np.ascontiguousarray(examples.offsets).data)
    values = examples.values if isinstance(examples, Ragged) else examples
    # By blocks: the examples may be more than memory holds.
    for start in range(0, len(values), HASH_BLOCK_ROWS):
        digest.update(np.ascontiguousarray(values[start : start + HASH_BLOCK_ROWS]).data)
    return digest.hexdigest()
