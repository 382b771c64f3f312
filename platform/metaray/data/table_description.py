"""What a table holds, for people who decide on an experiment."""

from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaray.config import replace
from metaray.data.draws import SPLITS, Split
from metaray.data.episode_spec import EpisodeSpec
from metaray.data.group_table import GroupTable
from metaray.data.remote import held
from metaray.data.tables.advice import advice
from metaray.data.tables.leaks import leaks
from metaray.data.tables.packed import PackedRows
from metaray.data.tables.table_file import BLOCK_ROWS, TableFile, TableMeta, read_table
from metaray.data.verified import open_verified


@dataclass(frozen=True)
class PartRow:
    """Statistics of one part of a table.

    Attributes:
        part: Meta-split: "meta-train", "meta-val" or "meta-test".
        groups: Number of groups in the part.
        sizes: Number of rows of a group, "min / median / max".
        targets: Mean +- standard deviation of the targets; for binary targets the share of positives in a group, "min /
            median / max".
        left_out: Groups with too few rows for the given spec.
        episodes: Number of distinct episodes of that spec.
    """

    part: Split
    groups: int
    sizes: str
    targets: str
    left_out: int
    episodes: int


@dataclass(frozen=True)
class ColumnRow:
    """Statistics of an input column.

    Attributes:
        name: Name of the column.
        holds: Kind of the column: "numbers", "categories", "labels", "vectors" or "items".
        missing: Share of rows without a value; for categories, labels and items also of those with unknown values only.
        values: Mean +- standard deviation over meta-train, or the number of known categories, labels or items; for
            vectors also their length.
    """

    name: str
    holds: str
    missing: float
    values: str


@dataclass(frozen=True)
class ItemsRow:
    """Statistics of the items that groups share.

    Attributes:
        name: Name of the column of items.
        items: Number of items in meta-train.
        rows_an_item: Number of rows of meta-train of an item, "min / median / max".
        unknown: Share of each part's rows whose item is missing or not in meta-train.
        shrinkage: Number of rows of the global mean that an item's own rows are weighed against.
        offset_shrinkage: Shrinkage of a group's mean difference to its items.
    """

    name: str
    items: int
    rows_an_item: str
    unknown: dict[Split, float]
    shrinkage: float
    offset_shrinkage: float

    @property
    def lines(self) -> list[str]:
        """The statistics as lines of text."""
        shares = ", ".join(f"{share:.1%} of {part}" for part, share in self.unknown.items() if part != "meta-train")
        return [
            f"items: {self.items} in meta-train ({self.name}), rows an item {self.rows_an_item}",
            f"rows whose item meta-train has not: {shares or 'none'}",
        ]


@dataclass(frozen=True)
class TableDescription:
    """The description of a table that `metaray data describe` prints.

    Attributes:
        meta: Metadata of the file.
        rows: Number of rows in the file.
        spec: Spec of the episodes that are counted.
        parts: Statistics of each part.
        columns: Statistics of each input column.
        items: Statistics of the items that groups share; None without items.
        settings: Settings for `--set` that scale targets to size 1; empty for binary targets.
        notes: Suspicious properties of the table, one sentence each.
    """

    meta: TableMeta
    rows: int
    spec: EpisodeSpec
    parts: tuple[PartRow, ...]
    columns: tuple[ColumnRow, ...]
    items: ItemsRow | None
    settings: str
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The description in JSON types."""
        meta = self.meta
        return {
            "targets": meta.kind,
            "target": meta.target,
            "ordered_by": meta.ordered_by,
            "wide": meta.wide,
            "groups": len(meta.groups),
            "rows": self.rows,
            "fingerprint": meta.fingerprint,
            "target_mean": meta.target_mean,
            "target_std": meta.target_std,
            "spec": self.spec.model_dump(mode="json"),
            "parts": [asdict(part) for part in self.parts],
            "columns": [asdict(column) for column in self.columns],
            "items": None if self.items is None else asdict(self.items),
            "notes": list(self.notes),
        }


def described(path: str | Path, spec: EpisodeSpec, *, verify: bool = False) -> TableDescription:
    """Open a table, verified now or earlier on this machine, and describe it.

    Args:
        path: Path or URI of a file that `metaray data import table` wrote.
        spec: Spec of the episodes to count, with 1 way.
        verify: Whether to verify the file now, even if that was done before.

    Raises:
        InputError: If the file is not a table, or is damaged.
    """
    with held(str(path)) as local:
        file = open_verified(local, read_table, verify=verify)
    meta, spec = file.meta, replace(spec, ways=1)
    source = GroupTable(path=str(path), targets=meta.kind)
    parts = tuple(_part(file, source, split, spec) for split in SPLITS)
    columns, items, notes = _columns(file), _items(file), (*leaks(file), *advice(file))
    return TableDescription(meta, len(file.x), spec, parts, columns, items, settings_of(meta), notes)


def settings_of(meta: TableMeta) -> str:
    """Settings for `--set` with which a source reads the file well."""
    if meta.kind == "binary":
        return "--set source.targets=binary"
    return f"--set source.target_mean={meta.target_mean:.6g} --set source.target_std={meta.target_std:.6g}"


def _part(file: TableFile, source: GroupTable, split: Split, spec: EpisodeSpec) -> PartRow:
    meta = file.meta
    groups = meta.splits.get(split, ())
    if not groups:
        return PartRow(split, 0, "-", "-", 0, 0)
    y = [file.targets(group, file.rows(group)).astype(np.float64) for group in groups]
    if meta.kind == "binary":
        shares = [float(one.mean()) for one in y]
        targets = f"{min(shares):.3f} / {median(shares):.3f} / {max(shares):.3f}"
    else:
        whole = np.concatenate(y)
        targets = f"{whole.mean():.4g} +- {whole.std():.4g}"
    sizes = [len(one) for one in y]
    told = f"{min(sizes)} / {median(sizes):g} / {max(sizes)}"
    left_out = len(source.left_out(split, spec))
    return PartRow(split, len(groups), told, targets, left_out, source.count_tasks(split, spec))


def _columns(file: TableFile) -> tuple[ColumnRow, ...]:
    table, found = file.meta.preprocessing, []
    flags = dict(zip(table.flagged, range(len(table.numbers), len(table.numbers) + len(table.flagged)), strict=True))
    for place, column in enumerate(table.numbers):
        missing = float(file.x[:, flags[place]].mean()) if place in flags else 0.0
        found.append(ColumnRow(column.name, "numbers", missing, f"{column.mean:.4g} +- {column.std:.4g}"))
    for place, one in enumerate(table.categories, len(table.numbers) + len(table.flagged)):
        missing = float((file.x[:, place] == 0).mean())
        found.append(ColumnRow(one.name, "categories", missing, str(len(one.categories))))
    start = len(table.numbers) + len(table.flagged) + len(table.categories)
    for several in table.labels:
        end = start + len(several.labels)
        missing = _without(file.x, start, end)
        found.append(ColumnRow(several.name, "labels", missing, str(len(several.labels))))
        start = end
    if table.item is not None:
        found.append(ColumnRow(table.item.name, "items", _unknown(file.x[:, -1]), str(len(table.item.items))))
    for vector in table.vectors:
        scale = "as they are" if (vector.mean, vector.std) == (0, 1) else f"{vector.mean:.4g} +- {vector.std:.4g}"
        found.append(ColumnRow(vector.name, "vectors", 0.0, f"{vector.size} numbers, {scale}"))
    return tuple(found)


def _items(file: TableFile) -> ItemsRow | None:
    item = file.meta.preprocessing.item
    if item is None:
        return None
    shares: dict[Split, float] = {}
    for split in SPLITS:
        if groups := file.meta.splits.get(split, ()):
            shares[split] = _unknown(file.x[np.concatenate([file.rows(group) for group in groups]), -1])
    told = f"{min(item.counts)} / {median(item.counts):g} / {max(item.counts)}"
    return ItemsRow(item.name, len(item.items), told, shares, item.shrinkage, item.offset_shrinkage)


def _unknown(codes: NDArray[np.float32]) -> float:
    """The share of rows whose item has no code."""
    return float((codes == 0).mean())


def _without(x: NDArray[np.float32] | PackedRows, start: int, end: int) -> float:
    """The share of rows with nothing in some columns, read by blocks: rows may be more than memory."""
    blocks = (x[first : first + BLOCK_ROWS, start:end] for first in range(0, len(x), BLOCK_ROWS))
    return sum(int((block == 0).all(axis=1).sum()) for block in blocks) / len(x)
