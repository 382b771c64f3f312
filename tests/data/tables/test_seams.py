"""Tables that have everything at once: missing numbers, categories, labels, vectors, bytes and items."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metaray.data import table_description
from metaray.data.draws import Split
from metaray.data.episode_spec import EpisodeSpec
from metaray.data.tables import advice, table_file
from metaray.data.tables.importing import import_table
from metaray.data.tables.packed import PackedRows
from metaray.data.tables.table_file import TableFile, read_table
from metaray.errors import InputError

GROUPS, EACH = 30, 10
ROWS = GROUPS * EACH
SPLITS: dict[Split, list[str]] = {
    "meta-train": [f"g{place:02d}" for place in range(20)],
    "meta-val": [f"g{place:02d}" for place in range(20, 25)],
    "meta-test": [f"g{place:02d}" for place in range(25, 30)],
}


def everything(kind: Any) -> pa.Table:
    """Rows group by group; vectors of that type of numbers; targets that differ between groups above all."""
    generator = np.random.default_rng(0)
    vectors = generator.normal(3, 2, (ROWS, 7)).astype(kind)
    bits = generator.integers(0, 2, (ROWS, 100)).astype(np.uint8)
    labels = [generator.choice(["x", "y ", "z"], generator.integers(0, 4), replace=False) for _ in range(ROWS)]
    return pa.table(
        {
            "group": np.repeat([f"g{place:02d}" for place in range(GROUPS)], EACH).tolist(),
            "target": (generator.normal(size=ROWS) + np.repeat(5.0 * np.arange(GROUPS), EACH)).tolist(),
            "number": [None if generator.random() < 0.2 else float(one) for one in generator.normal(size=ROWS)],
            "count": generator.integers(0, 200, ROWS).tolist(),
            "category": [None if generator.random() < 0.1 else f"c{one}" for one in generator.integers(0, 5, ROWS)],
            "labels": ["|".join(some) for some in labels],
            "item": [None if generator.random() < 0.1 else f"i{one}" for one in generator.integers(0, 15, ROWS)],
            "vector": _lists(vectors),
            "bits": _lists(bits),
        }
    )


def _lists(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def imported(folder: Path, table: pa.Table, **options: Any) -> tuple[TableFile, tuple[str, ...]]:
    pq.write_table(table, folder / "raw.parquet")
    chosen: dict[str, Any] = {"tasks": ["group"], "target": "target", "labels": {"labels": "|"}, "splits": SPLITS}
    report = import_table(folder / "raw.parquet", folder / "table.arrow", **chosen | options)
    return read_table(report.path), report.notes


@pytest.mark.parametrize("item", [None, "item"])
@pytest.mark.parametrize("scaling", ["standard", "quantile"])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_rows_of_the_file_are_those_that_learners_read(
    kind: Any, scaling: str, item: str | None, tmp_path: Path
) -> None:
    table = everything(kind)
    options = {"item": item} if item else {"leave_out": ["item"]}
    file, _ = imported(tmp_path, table, scaling=scaling, **options)
    assert isinstance(file.x, PackedRows)
    own = 20 * EACH if item else 0  # of meta-train the own group's targets are left out of the items
    assert np.array_equal(file.meta.preprocessing.read(table)[own:], file.x[own:])


def test_differences_to_the_support_are_not_advised_where_there_are_items(tmp_path: Path) -> None:
    table = everything(np.float32)
    for options, advised in (({"leave_out": ["item"]}, True), ({"item": "item"}, False)):
        file, notes = imported(tmp_path, table, **options)
        assert any("centred" in note for note in notes) == advised
        described = table_description.described(file.path, EpisodeSpec(shots=2, queries=2))
        assert any("centred" in note for note in described.notes) == advised


def test_a_description_never_reads_whole_rows_of_more_than_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = imported(tmp_path, everything(np.float32), item="item")
    spec = EpisodeSpec(shots=2, queries=2)
    wanted = table_description.described(file.path, spec)
    read, found = PackedRows.__getitem__, list[int]()

    def watched(self: PackedRows, key: Any) -> Any:
        rows = read(self, key)
        found.append(len(rows) if rows.ndim == 2 else 0)
        return rows

    monkeypatch.setattr(PackedRows, "__getitem__", watched)
    for module in (table_description, advice, table_file):
        monkeypatch.setattr(module, "BLOCK_ROWS", 16)
    assert table_description.described(file.path, spec) == wanted
    assert max(found) == 16


def test_labels_that_meta_train_has_not_are_not_enough(tmp_path: Path) -> None:
    table = everything(np.float32).select(["group", "target", "labels"])
    kept = ["x|y" if group == "g29" else None for group in table["group"].to_pylist()]
    with pytest.raises(InputError, match="no row of meta-train has a label in 'labels', and there is no other column"):
        imported(tmp_path, table.set_column(2, "labels", pa.array(kept, pa.string())))
    assert not (tmp_path / "table.arrow").exists()


@pytest.mark.parametrize("written", ["3", "3.0"])
def test_names_that_are_whole_numbers_are_known_however_they_are_written(tmp_path: Path, written: str) -> None:
    """pandas writes whole numbers beside empty cells with a point, and reads them as floats."""
    rows = [
        f"g{place % 3:02d},{place},{place % 7},{written if place % 2 else ''},{written if place % 2 else ''}"
        for place in range(30)
    ]
    (tmp_path / "raw.csv").write_text("\n".join(["group,target,number,name,item", *rows]))
    splits: dict[Split, list[str]] = {"meta-train": ["g00"], "meta-val": ["g01"], "meta-test": ["g02"]}
    options: dict[str, Any] = {"categorical": ["name"], "item": "item", "splits": splits}
    report = import_table(tmp_path / "raw.csv", tmp_path / "table.arrow", tasks=["group"], target="target", **options)
    table = report.meta.preprocessing
    for cell in (written, 3, 3.0, np.float32(3)):
        row = table.read([{"number": 1, "name": cell, "item": cell}])
        assert row[0, -1] == 1 and row[0, 1] == 1, cell
    assert table.read([{"number": 1, "name": 4.0, "item": 30}])[0, -1] == 0
