"""What tables become, and what is refused of them, by the row and the column, before anything is written."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from metaray.data.draws import Split
from metaray.data.group_table import GroupTable
from metaray.data.tables import raw_table
from metaray.data.tables.importing import import_table
from metaray.errors import InputError
from tests.data.patients import SPLITS, Lines, MakeTable, patients, write


def changed(row: int, column: str, text: str) -> Lines:
    lines = patients()
    lines[row][lines[0].index(column)] = text
    return lines


@pytest.mark.parametrize(
    ("lines", "options", "told"),
    [
        (changed(7, "dose", "high"), {}, r"row 7: dose is 'high', but 68 other cells of the column hold numbers"),
        (changed(7, "score", "bad"), {}, r"row 7: score is 'bad', not a finite number of 32 bits, but it is the targ"),
        (changed(7, "score", "inf"), {}, r"row 7: score is 'inf', not a finite number"),
        (changed(7, "patient", ""), {}, "row 7: patient is empty, but it says which group"),
        (changed(7, "score", "2"), {"binary": True}, "row 1: score is '.*'; of binary targets give 0"),
        ([["patient", "a", "a", "score"], ["p", "1", "2", "3"]], {}, "has the column 'a' 2 times"),
        ([["patient", "", "score"], ["p", "1", "2"]], {}, "column 2 of its first line has no name"),
        ([[*line[:4], "", line[5]] if i else line for i, line in enumerate(patients())], {}, "'colour' is empty in ev"),
        ([[*line[:5], "7"] if i else line for i, line in enumerate(patients())], {}, "'score' is 7 in every row"),
        ([["patient", "day", "age", "score"]], {}, "has no rows below its header"),
        ([*patients(), ["p1", "3"]], {}, "cannot be read: .*Expected 6 columns, got 2"),
        (None, {"target": "scores"}, "--target: unknown column 'scores'.*Did you mean 'score'"),
        (None, {"leave_out": ["day", "age", "dose", "colour"]}, "no column is left to predict from"),
        (None, {"target": "patient"}, "'patient' cannot be two of"),
        (None, {"splits": {"meta-train": ["p1"], "meta-test": ["p1"]}}, "groups in more than one part: p1"),
        (None, {"splits": {"meta-train": ["p99"]}}, "unknown group of meta-train 'p99'"),
        (None, {"tasks": ["patient", "day"]}, "one column says which group"),
        (None, {"wide": True}, "each column of --task holds targets of its own"),
    ],
)
def test_bad_input_is_refused(
    make_table: MakeTable, tmp_path: Path, lines: Lines | None, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        make_table(lines, **{"leave_out": ["day"] if lines is None or "day" in lines[0] else [], **options})
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".csv"]


def test_categories_and_missing_cells(make_table: MakeTable) -> None:
    lines = patients()
    for line in lines[1:]:
        if line[0] == "p8":
            line[4] = "green"  # which meta-train has not
    table = make_table(lines)
    (colour,), (age, dose) = table.preprocessing.categories, table.preprocessing.numbers
    assert colour.categories == ("blue", "red") and age.missing and not dose.missing
    file = table._open().file
    assert set(file.x[file.rows(8), 3].tolist()) == {0.0} and set(file.x[file.rows(7), 3].tolist()) == {1.0, 2.0}
    assert file.x[:, 2].sum() == 9 and (file.x[file.x[:, 2] == 1, 0] == 0).all()


def test_numbers_declared_categories(make_table: MakeTable) -> None:
    lines = [[*line[:4], str(i % 3), line[5]] if i else line for i, line in enumerate(patients())]
    assert make_table(lines, categorical=["colour"]).preprocessing.categories[0].categories == ("0", "1", "2")
    assert len(make_table(lines).preprocessing.numbers) == 3


def test_rows_are_those_of_the_file_however_small_the_batches(
    make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_table().fingerprint
    monkeypatch.setattr(raw_table, "BLOCK_BYTES", 300)
    assert make_table().preprocessing.numbers[0].mean == pytest.approx(make_table().preprocessing.numbers[0].mean)
    table = make_table()
    file, lines = table._open().file, [line for line in patients()[1:] if line[0] == "p3"]
    scores = [float(line[5]) for line in lines]
    np.testing.assert_allclose(file.targets(3, file.rows(3)), scores, rtol=1e-6)
    column = table.preprocessing.numbers[1]
    raw = file.x[file.rows(3), 1] * column.std + column.mean
    np.testing.assert_allclose(raw, [float(line[3]) for line in lines], atol=1e-4)
    assert len(whole) == 64


def test_parquet_is_the_same_table(make_table: MakeTable, tmp_path: Path) -> None:
    expected = make_table()
    table = pyarrow.csv.read_csv(tmp_path / "patients.csv")
    pq.write_table(table, tmp_path / "patients.parquet")
    options: dict[str, Any] = {"tasks": ["patient"], "target": "score", "leave_out": ["day"], "splits": SPLITS}
    report = import_table(tmp_path / "patients.parquet", tmp_path / "q.arrow", **options)
    assert report.meta.fingerprint == expected.meta.fingerprint


def test_rows_without_a_target_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", changed(12, "score", ""))
    report = import_table(path, tmp_path / "t.arrow", tasks=["patient"], target="score", splits=SPLITS)
    assert report.rows == 68 and "1 row without a target left out" in report.notes


def test_wide_form_shares_rows(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    lines = [["mw", "logp", "a", "b", "c"]]
    for _ in range(30):
        labels = [str(generator.integers(2)) if generator.random() > 0.3 else "" for _ in range(3)]
        lines.append([f"{generator.normal():.4f}", f"{generator.normal():.4f}", *labels])
    splits: dict[Split, list[str]] = {"meta-train": ["a"], "meta-val": ["b"], "meta-test": ["c"]}
    path = write(tmp_path / "assays.csv", lines)
    report = import_table(
        path,
        tmp_path / "assays.arrow",
        tasks=["a", "b", "c"],
        wide=True,
        binary=True,
        splits=splits,
    )
    table = GroupTable(path=str(report.path), targets="binary")
    file = table._open().file
    assert report.meta.counts == tuple(sum(line[i] != "" for line in lines[1:]) for i in (2, 3, 4))
    measured = [line[3] for line in lines[1:] if line[3] and any(line[2:])]
    assert [str(int(y)) for y in file.targets(1, file.rows(1))] == measured
    assert table.preprocessing.is_plain and len(file.x) == sum(any(line[2:]) for line in lines[1:])


def test_a_damaged_file_is_told(make_table: MakeTable) -> None:
    table = make_table()
    path = Path(table.path)
    data = bytearray(path.read_bytes())
    file = pa.ipc.open_file(pa.py_buffer(bytes(data)))
    assert file.num_record_batches == 1
    mark = np.float32(table._open().file.x[3, 1]).tobytes()
    at = bytes(data).index(mark)
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged: its rows don't match its fingerprint"):
        table.verify()
    path.write_bytes(bytes(data[: len(data) // 2]))
    with pytest.raises(InputError, match="not a table of metaray, or a truncated one"):
        table.verify()


def test_splits_are_of_groups(make_table: MakeTable, tmp_path: Path) -> None:
    """And so they are called where they go wrong."""
    with pytest.raises(InputError, match="a fraction of 0.01 of 9 groups leaves meta-val without a group: p0, p1"):
        make_table(splits=(0.9, 0.01, 0.09))
    for name, groups in {"train": "p1\np99", "val": "p2", "test": "p3"}.items():
        (tmp_path / f"{name}.txt").write_text(groups)
    with pytest.raises(InputError, match=r"train\.txt: unknown group 'p99'"):
        make_table(splits=tmp_path)
    (tmp_path / "train.txt").write_text("p1\np2")
    with pytest.raises(InputError, match="meta-train and meta-val overlap in 1 groups: 'p2'"):
        make_table(splits=tmp_path)
    (tmp_path / "train.txt").write_text("p1")
    with pytest.raises(InputError, match="none of train.txt, val.txt, test.txt names the group 'p0'"):
        make_table(splits=tmp_path)
