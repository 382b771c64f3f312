"""Columns of vectors, and small whole numbers in bytes: the same rows, fewer of them in memory and in the file."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metaray.data.draws import Draws, Split
from metaray.data.episode_spec import EpisodeSpec
from metaray.data.group_table import GroupTable
from metaray.data.preprocessing import TablePreprocessing, VectorColumn
from metaray.data.tables import raw_table
from metaray.data.tables.importing import import_table
from metaray.data.tables.packed import PackedRows, packing, ranges_of
from metaray.data.tables.raw_table import RawTable
from metaray.errors import InputError

ROWS, SIZE = 60, 12
SPLITS: dict[Split, list[str]] = {"meta-train": ["a"], "meta-val": ["b"], "meta-test": ["c"]}


def assays(**columns: Any) -> pa.Table:
    """Three assays, of which not all rows are measured, and a fingerprint; keyword arguments are other columns."""
    generator = np.random.default_rng(0)
    labels = {
        name: pa.array([None if generator.random() < 0.2 else int(generator.integers(2)) for _ in range(ROWS)])
        for name in "abc"
    }
    counts = np.random.default_rng(1).integers(0, 4, (ROWS, SIZE)).astype(np.uint8)
    return pa.table(labels | ({"fingerprint": lists(counts)} | columns))


def lists(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def imported(folder: Path, table: pa.Table, **options: Any) -> GroupTable:
    pq.write_table(table, folder / "assays.parquet")
    chosen: dict[str, Any] = {"tasks": list("abc"), "wide": True, "binary": True, "splits": SPLITS}
    report = import_table(folder / "assays.parquet", folder / "assays.arrow", **chosen | options)
    return GroupTable(path=str(report.path), targets="binary")


def raw(table: pa.Table, name: str = "fingerprint") -> np.ndarray:
    kept = [any(one is not None for one in row) for row in zip(*(table[c].to_pylist() for c in "abc"), strict=True)]
    return np.array(table[name].to_pylist())[kept]


@pytest.mark.parametrize("kind", [pa.list_(pa.uint8()), pa.large_list(pa.int64()), pa.list_(pa.float32(), SIZE)])
def test_whole_numbers_stay_as_they_are_in_a_byte_each(tmp_path: Path, kind: Any) -> None:
    table = assays()
    table = table.set_column(3, "fingerprint", table["fingerprint"].cast(kind))
    source = imported(tmp_path, table)
    file = source._open().file
    assert source.preprocessing.vectors == (VectorColumn(name="fingerprint", size=SIZE),)
    assert file.x[:].dtype == np.uint8 and np.array_equal(file.x[:], raw(table))
    assert source.feature_shape == (SIZE,) and source.preprocessing.is_plain
    task = source.sample_task(Draws(0, "meta-train", 0), "meta-train", EpisodeSpec(shots=3, queries="rest"))
    assert task.support.x.dtype == np.uint8 and task.support.x.shape == (6, SIZE)
    source.verify()


def test_other_numbers_are_scaled_alike_by_meta_train(tmp_path: Path) -> None:
    embedding = np.random.default_rng(2).normal(100, [1.0, 5.0, 0.0], (ROWS, 3)).astype(np.float32)
    table = assays(fingerprint=lists(embedding))
    source = imported(tmp_path, table)
    (column,) = source.preprocessing.vectors
    train = embedding[[one is not None for one in table["a"].to_pylist()]].astype(np.float64)
    assert [column.mean, column.std] == pytest.approx([train.mean(), train.std()])
    np.testing.assert_allclose(source._open().file.x[:], (raw(table) - column.mean) / column.std, atol=1e-5)
    as_is = imported(tmp_path, table, as_is=["fingerprint"])
    assert np.array_equal(as_is._open().file.x[:], raw(table).astype(np.float32))


def test_vectors_beside_numbers_and_categories(tmp_path: Path) -> None:
    import torch

    from metaray.models import TableMLP

    weight = [None if i == 3 else float(i) for i in range(ROWS)]
    table = assays(weight=weight, colour=["red" if i % 2 else "blue" for i in range(ROWS)])
    source = imported(tmp_path, table)
    prepared, file = source.preprocessing, source._open().file
    assert file.meta.version == 2 and file.meta.small and prepared.feature_shape == (3 + SIZE,)
    x = prepared.normalize(torch.from_numpy(file.x[:]))
    assert isinstance(x, dict) and x["numbers"].shape == (len(file.x), 1) and x["categories"].max() == 2
    assert np.array_equal(x["vectors"].numpy(), raw(table))
    network = TableMLP(hidden=(4,), embedding=2).build_for(prepared.feature_shape, 2, prepared)
    assert network(x).shape == (len(file.x), 2)
    rows = table.drop_columns(list("abc")).slice(5, 4)
    assert np.array_equal(prepared.read(rows), prepared.read(rows.to_pylist()))
    known = prepared.read(table.filter(pa.array([any(r) for r in _measured(table)])))
    assert isinstance(known, np.ndarray) and np.array_equal(known, file.x[:])
    assert TablePreprocessing.parse(prepared.model_dump(mode="json"), where="test") == prepared


def _measured(table: pa.Table) -> list[list[bool]]:
    return [[row[name] is not None for name in "abc"] for row in table.to_pylist()]


def test_columns_of_small_whole_numbers_are_the_same_rows_in_fewer_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standardised when they are read, to the bit as if they were stored so."""
    generator = np.random.default_rng(3)
    columns = {f"bit{i}": generator.integers(0, 2 + i, ROWS).tolist() for i in range(9)}
    table = assays(**columns, weight=generator.normal(size=ROWS).tolist()).drop_columns(["fingerprint"])
    packed = imported(tmp_path, table)
    rows = packed._open().file.x
    assert isinstance(rows, PackedRows)
    found, size, packed_fingerprint = rows[:], Path(packed.path).stat().st_size, packed.meta.fingerprint
    assert found.dtype == np.float32 and rows.dtype == np.float32
    monkeypatch.setattr("metaray.data.tables.importing.packing", lambda *_: ())
    plain = imported(tmp_path, table)
    expected = plain._open().file.x
    assert isinstance(expected, np.ndarray) and plain.meta.version == 1 and "small" not in plain.meta.model_dump_json()
    assert np.array_equal(found, expected) and size < Path(plain.path).stat().st_size
    assert packed_fingerprint == plain.meta.fingerprint, "how a file keeps its rows makes it no other data"
    some = np.array([5, 2, 9])
    assert np.array_equal(rows[some], expected[some]) and np.array_equal(rows[7], expected[7])
    for place in (0, 4, 9):
        assert np.array_equal(rows[:, place], expected[:, place]) and rows[3, place] == expected[3, place]


def test_bytes_only_where_they_halve_the_file() -> None:
    columns = TablePreprocessing.parse({"numbers": [{"name": name} for name in "abcd"]}, where="test")
    assert packing(columns, {"a"}) == () and packing(columns, {"a", "b", "d"}) == ((0, 2), (3, 4))
    assert ranges_of([False, False]) == ()


def test_rare_bits_are_not_thousands_of_deviations_away(tmp_path: Path) -> None:
    rows = 600
    labels = {name: pa.array([i % 3 % 2 for i in range(rows)]) for name in "abc"}
    rare = [int(i == 7) for i in range(rows)]
    table = pa.table(labels | {"rare": rare, "half": [i % 2 for i in range(rows)], "as_it_is": rare})
    source = imported(tmp_path, table, as_is=["as_it_is"])
    numbers = {one.name: one for one in source.preprocessing.numbers}
    assert [numbers["rare"].std, numbers["half"].std] == pytest.approx([0.1, 0.5])
    assert (numbers["as_it_is"].mean, numbers["as_it_is"].std) == (0.0, 1.0)


def ragged() -> pa.Array:
    return pa.array([[1, 2, 3]] * 8 + [[1, 2]] + [[1, 2, 3]] * (ROWS - 9))


@pytest.mark.parametrize(
    ("columns", "options", "told"),
    [
        ({"fingerprint": ragged()}, {}, "row 9: fingerprint has 2 numbers, but row 1 has 3"),
        ({"fingerprint": pa.array([[1, 2]] * 4 + [None] * (ROWS - 4))}, {}, "row 5: fingerprint is empty, and vectors"),
        ({"fingerprint": pa.array([None] + [[1, 2]] * (ROWS - 1))}, {}, "row 1: fingerprint is empty, and vectors"),
        ({"fingerprint": pa.array([[]] * ROWS, pa.list_(pa.int8()))}, {}, "row 1: fingerprint has 0 numbers"),
        ({"fingerprint": pa.array([[1.0, 2.0]] * 3 + [[1.0, None]] * (ROWS - 3))}, {}, "row 4: .* number 1 is missing"),
        ({"fingerprint": pa.array([[1.0, 2.0]] * 3 + [[np.inf, 1.0]] * (ROWS - 3))}, {}, "row 4: .* number 0 is inf"),
        ({"fingerprint": pa.array([["a"]] * ROWS)}, {}, "'fingerprint' holds lists of string, and vectors have num"),
        ({"fingerprint": pa.array([[[1.0]]] * ROWS)}, {}, "'fingerprint' holds lists of list<.*: double>, and vec"),
        ({"fingerprint": pa.array([{"a": 1}] * ROWS)}, {}, "holds struct<a: int64>, which is no number, no text and"),
        ({"fingerprint": pa.array([b"a"] * ROWS)}, {}, "holds binary, which is no number, no text and no list"),
        ({}, {"categorical": ["fingerprint"]}, "'fingerprint' holds vectors, which are no categories"),
        ({}, {"as_is": ["a"]}, "--as-is: 'a' is no column to predict from"),
        ({"c1": ["x"] * ROWS}, {"as_is": ["c1"]}, "--as-is: 'c1' holds no numbers"),
        ({}, {"tasks": ["a", "b", "fingerprint"]}, "'fingerprint' holds vectors, and is no --task"),
        ({"a": pa.array([1] * ROWS)}, {}, "target 'a' is positive in every row: there is nothing to learn"),
        ({"a": pa.array([None] * ROWS, pa.int8())}, {}, "target 'a' is empty in every row"),
        ({"a": pa.array([0, 1, 2] * (ROWS // 3))}, {}, "row 3: a is '2'; of binary targets give 0"),
    ],
)
def test_bad_vectors_and_assays_are_refused(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        imported(tmp_path, assays(**columns), **options)
    assert [path.name for path in tmp_path.iterdir()] == ["assays.parquet"]


def test_an_empty_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rows below its header"):
        imported(tmp_path, assays().slice(0, 0))
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match="empty.csv: is empty; its first line must name"):
        import_table(tmp_path / "empty.csv", tmp_path / "out.arrow", tasks=list("abc"), wide=True)


def test_assays_with_few_positives_are_left_out_and_counted(tmp_path: Path) -> None:
    few = [1] * 3 + [0] * (ROWS - 3)
    source = imported(tmp_path, assays(a=few), splits={"meta-train": ["a", "b"], "meta-test": ["c"]})
    assert source.left_out("meta-train", EpisodeSpec(shots=3, queries="rest")) == ["a"]
    with pytest.raises(InputError, match="none of the 2 groups of meta-train has enough rows.*of each class"):
        source.check("meta-train", EpisodeSpec(shots=40, queries=1))


def test_wide_rows_are_read_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_table, "PARQUET_CELLS", 10 * (SIZE + 1))
    pq.write_table(assays(), tmp_path / "assays.parquet")
    table = RawTable(tmp_path / "assays.parquet")
    batches = list(table.batches(["a", "fingerprint"]))
    assert [one.first for one in batches] == list(range(1, ROWS, 10))


@pytest.mark.parametrize(
    ("x", "told"),
    [
        ({"fingerprint": [[1, 2]]}, "row 0 of x: fingerprint has 2 numbers, but must have 12"),
        ({"fingerprint": ["one two"]}, "row 0 of x: fingerprint is 'one two', but must be a vector of 12 numbers"),
        ({"fingerprint": [[np.nan] * SIZE]}, "number 0 of fingerprint is nan; give finite numbers"),
        ({"fingerprint": [3]}, "must be a vector of 12 numbers"),
        (np.zeros((3, 4)), "row 0 of x: fingerprint has 4 numbers, but must have 12"),
    ],
)
def test_users_vectors_are_checked(x: Any, told: str) -> None:
    prepared = TablePreprocessing(vectors=(VectorColumn(name="fingerprint", size=SIZE),))
    with pytest.raises(InputError, match=told):
        prepared.read(x)


def test_users_give_vectors_in_many_ways() -> None:
    import pandas as pd
    import torch

    prepared = TablePreprocessing(vectors=(VectorColumn(name="fingerprint", size=3, mean=1.0, std=2.0),))
    values = np.array([[1.0, 3.0, 5.0], [1.0, 1.0, 1.0]])
    expected = np.array([[0, 1, 2], [0, 0, 0]], dtype=np.float32)
    texts = [["[1, 3, 5]"], ["1 1 1"]]
    given: list[Any] = [
        values,
        values.tolist(),
        torch.from_numpy(values),
        list(torch.from_numpy(values)),
        {"fingerprint": values.tolist()},
        [{"fingerprint": row} for row in values],
        pd.DataFrame({"fingerprint": list(values), "other": [1, 2]}),
        pa.table({"fingerprint": values.tolist()}),
        prepared.from_cells(texts, ["fingerprint"], str),
        [[row] for row in values],
    ]
    for x in given:
        assert np.array_equal(prepared.read(x), expected), type(x)
    assert np.array_equal(prepared.read(values[0]), expected[:1])
    assert [column.type for column in prepared.columns] == ["vector"]
