"""The file of a table whose groups are tasks: one Arrow IPC file, memory-mapped; rows are read as they are drawn.

One record batch with the columns `x` (a list of float32 a row, the compact form of `TablePreprocessing`) and `y` (a
list of float32: the row's target; in wide form one a group, NaN where it was not measured). Where most numbers are
small whole ones (`TableMeta.small`) a third column, `small`, holds these as bytes, and `x` only the others: the second
version of the format. In long form rows lie group by group, in each in their order if there is one. Everything else is
one JSON object in the schema metadata, described by `TableMeta`.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import SerializerFunctionWrapHandler, model_serializer

from metaray.config import Config, replace
from metaray.data.arrow_numbers import numbers_in
from metaray.data.draws import Split
from metaray.data.preprocessing import TablePreprocessing
from metaray.data.store_file import check_disjoint
from metaray.data.tables.packed import PackedRows, Ranges, places_of
from metaray.errors import InputError
from metaray.json_text import parse_object

METADATA_KEY = b"metaray.table"
FORMAT_VERSION = 2
"""1 knew neither bytes, nor columns of vectors, of several labels, of items and of ranks: without, it is written."""
BLOCK_ROWS = 4096
REMEDY = "import the table again (metaray data import table), or copy the file again from where it is whole"


class TableMeta(Config):
    """The metadata of a table file, in its Arrow schema.

    Attributes:
        version: Version of the file format: the oldest one that can hold the table, so that older versions of metaray
            read it.
        kind: Kind of the tasks.
        target: Name of the target column; empty in wide form, where each group has its own.
        ordered_by: Name of the column by which the rows of a group are ordered; None if they have no order.
        wide: Whether groups share rows: each group has the rows in which its target was measured.
        groups: Names of the groups; the position is the number of the group.
        counts: Number of rows of each group.
        splits: Numbers of the groups of each meta-split, disjoint.
        preprocessing: Preprocessing that turned raw rows into those of the file.
        target_mean: Mean of the targets over the rows of meta-train.
        target_std: Standard deviation of the targets over the rows of meta-train.
        small: Places of the numbers that are stored in a byte each; omitted from the JSON if empty.
        origin: Notes, which the fingerprint does not cover.
        fingerprint: SHA-256 (hex) over all of the above except the origin, and over the rows.
    """

    version: int = 1
    kind: Literal["regression", "binary"]
    target: str
    ordered_by: str | None
    wide: bool
    groups: tuple[str, ...]
    counts: tuple[int, ...]
    splits: dict[Split, tuple[int, ...]]
    preprocessing: TablePreprocessing
    target_mean: float
    target_std: float
    small: Ranges = ()
    origin: dict[str, str] = {}
    fingerprint: str = ""

    @model_serializer(mode="wrap")
    def _as_before_bytes(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = write(self)
        if not tree.get("small"):
            tree.pop("small", None)
        return tree


@dataclass(frozen=True)
class TableFile:
    """An open table file. Its arrays are read-only views of the memory-mapped file.

    Attributes:
        path: Path of the file.
        meta: Metadata of the file.
        x: Inputs [rows, columns], float32 or bytes.
        y: Targets [rows, 1] float32; [rows, groups] in wide form.
        offsets: Offsets [groups + 1] int64; in long form group g has rows offsets[g] .. offsets[g + 1] - 1.
    """

    path: Path
    meta: TableMeta
    x: NDArray[np.float32] | PackedRows
    y: NDArray[np.float32]
    offsets: NDArray[np.int64]

    def rows(self, group: int) -> NDArray[np.int64]:
        """Row indices of a group, in their order."""
        if self.meta.wide:
            return np.flatnonzero(~np.isnan(self.y[:, group]))
        return np.arange(self.offsets[group], self.offsets[group + 1])

    def targets(self, group: int | NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """[n] of some of a group's rows, or of rows of as many groups [n]."""
        found: NDArray[np.float32] = self.y[rows, group if self.meta.wide else 0]
        return found


def is_table_file(path: Path) -> bool:
    """Whether a file is a table file; False if it cannot be read at all."""
    try:
        with pa.memory_map(str(path)) as mapped:
            return METADATA_KEY in (pa.ipc.open_file(mapped).schema.metadata or {})
    except (pa.ArrowException, OSError, ValueError):
        return False


def read_table(path: Path, *, verify: bool = False) -> TableFile:
    """Open a table file, memory-mapped.

    Args:
        path: Path of the file.
        verify: Whether to read every row and compare with the fingerprint.

    Raises:
        InputError: If the file is missing, truncated, not a table, of another format version, inconsistent, or (with
            `verify`) changed; the message names it.
    """
    if not os.path.isfile(path):  # noqa: PTH113 - pathlib's raises for names that are too long
        raise InputError(f"{path}: no such table" + (" (it is a folder)" if os.path.isdir(path) else ""))  # noqa: PTH112
    try:
        with pa.memory_map(str(path)) as mapped:
            reader = pa.ipc.open_file(mapped)
            meta = _parse(reader.schema.metadata or {}, path)
            if reader.num_record_batches != 1 or reader.schema.names != _columns(meta):
                raise InputError(f"{path}: damaged: its columns are {reader.schema.names}; {REMEDY}")
            batch = reader.get_batch(0)
            batch.validate()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: not a table of metaray, or a truncated one ({first_line}); {REMEDY}") from None
    parts = _parts(meta, batch, path)
    x = _rows(meta, parts)
    offsets = np.concatenate([[0], np.cumsum(meta.counts)]).astype(np.int64)
    _check(meta, parts[1], offsets, path)
    if verify and fingerprint_of(meta, x, parts[1]) != meta.fingerprint:
        raise InputError(f"{path}: damaged: its rows don't match its fingerprint {meta.fingerprint}; {REMEDY}")
    return TableFile(path, meta, x, parts[1], offsets)


def write_table(
    path: Path,
    meta: TableMeta,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    small: NDArray[np.uint8] | None = None,
) -> TableFile:
    """Write a table file atomically, replacing any file at `path`.

    Args:
        path: Path of the file; missing folders are made.
        meta: Metadata of the file; the fingerprint is filled in.
        x: Inputs [rows, columns], without the columns in `meta.small`.
        y: Targets [rows, 1 or groups].
        small: The columns in `meta.small`, [rows, bytes], as in the raw table; None without any.

    Raises:
        InputError: If the path cannot be written, or the arguments do not fit together.
    """
    parts: list[NDArray[Any]] = [x, y, *([] if small is None else [small])]
    meta = replace(meta, version=_version_of(meta.preprocessing, packed=small is not None))
    meta = replace(meta, fingerprint=fingerprint_of(meta, _rows(meta, parts), y))
    folder = path.absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        try:
            _write(temporary, meta, parts)
            read_table(temporary, verify=True)
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink()
            raise
    except OSError as error:
        raise InputError(f"{path}: can't write the table: {error}") from None
    return read_table(path)


def fingerprint_of(meta: TableMeta, x: NDArray[np.float32] | PackedRows, y: NDArray[np.float32]) -> str:
    """SHA-256 (hex) over metadata and rows, independent of how the file stores them.

    It is computed in blocks, since there may be more rows than memory holds.
    """
    described = meta.model_dump(mode="json", exclude={"origin", "fingerprint", "small"})
    described["version"] = _version_of(meta.preprocessing, packed=False)
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for values in (x, y):
        for start in range(0, len(values), BLOCK_ROWS):
            digest.update(np.ascontiguousarray(values[start : start + BLOCK_ROWS], dtype=np.float32).data)
    return digest.hexdigest()


def _rows(meta: TableMeta, parts: Sequence[NDArray[Any]]) -> NDArray[np.float32] | PackedRows:
    return PackedRows(parts[0], parts[2], meta.small, meta.preprocessing) if meta.small else parts[0]


def _write(path: Path, meta: TableMeta, parts: Sequence[NDArray[Any]]) -> None:
    columns = [
        pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])
        if values.shape[1]
        else _of_nothing(len(values))
        for values in parts
    ]
    fields = [(name, column.type) for name, column in zip(_columns(meta), columns, strict=True)]
    schema = pa.schema(fields, {METADATA_KEY: meta.model_dump_json()})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))


def _of_nothing(rows: int) -> Any:
    """A column of lists of no float32."""
    return pa.Array.from_buffers(pa.list_(pa.float32(), 0), rows, [None], children=[pa.array([], pa.float32())])


def _columns(meta: TableMeta) -> list[str]:
    return ["x", "y", *(["small"] if meta.small else [])]


def _parts(meta: TableMeta, batch: Any, path: Path) -> list[NDArray[Any]]:
    """The arrays of a file: `x` without bytes, `y`, and the bytes where there are some."""
    width = meta.preprocessing.feature_shape[0]
    if any(not 0 <= first < last <= width for first, last in meta.small):
        raise InputError(f"{path}: damaged: of {width} columns those of bytes are {meta.small}; {REMEDY}")
    small = int(places_of(meta.small, width).sum())
    widths = [(width - small, pa.float32()), (len(meta.groups) if meta.wide else 1, pa.float32())]
    widths += [(small, pa.uint8())] if small else []
    return [_matrix(batch.column(i), size, kind, path) for i, (size, kind) in enumerate(widths)]


def _version_of(preprocessing: TablePreprocessing, *, packed: bool) -> int:
    later = preprocessing.labels or preprocessing.vectors or preprocessing.item is not None
    return 2 if packed or later or any(column.quantiles for column in preprocessing.numbers) else 1


def _parse(metadata: Any, path: Path) -> TableMeta:
    if METADATA_KEY not in metadata:
        raise InputError(f"{path}: an Arrow file, but not a table of metaray: `metaray data import table` makes one")
    values = parse_object(metadata[METADATA_KEY], where=f"{path}: its metadata")
    if values.get("version") not in range(1, FORMAT_VERSION + 1):
        raise InputError(
            f"{path}: format version {values.get('version')!r}, but this metaray reads versions 1 to {FORMAT_VERSION}; "
            "import the table again"
        )
    return TableMeta.parse(values, where=str(path))


def _matrix(column: Any, width: int, kind: Any, path: Path) -> NDArray[Any]:
    if column.type != pa.list_(kind, width) or column.null_count or column.values.null_count:
        raise InputError(f"{path}: damaged: a column is of type {column.type}, not {width} numbers; {REMEDY}")
    flat: NDArray[Any] = numbers_in(column.flatten())
    return flat.reshape(len(column), width)


def _check(meta: TableMeta, y: NDArray[np.float32], offsets: NDArray[np.int64], path: Path) -> None:
    if len(set(meta.groups)) != len(meta.groups) or len(meta.counts) != len(meta.groups):
        raise InputError(f"{path}: damaged: {len(meta.counts)} counts for {len(meta.groups)} groups; {REMEDY}")
    if not meta.wide and (min(meta.counts, default=0) < 1 or offsets[-1] != len(y)):
        raise InputError(f"{path}: damaged: its groups hold {offsets[-1]} rows, but there are {len(y)}; {REMEDY}")
    check_disjoint(meta.splits, meta.groups, where=str(path), many="groups")
