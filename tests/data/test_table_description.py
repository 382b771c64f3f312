"""Groups, sizes, missing shares and targets of a table, counted by hand."""

import json
from pathlib import Path

import pytest

from metaray.data.episode_spec import EpisodeSpec
from metaray.data.table_description import described
from tests.data.patients import MakeTable


def test_a_table_of_values(make_table: MakeTable) -> None:
    table = make_table()
    found = described(Path(table.path), EpisodeSpec(ways=5, shots=4, queries=3), verify=True)
    train, val, test = found.parts
    assert (train.groups, train.sizes, train.left_out) == (5, "5 / 8 / 8", 1) and val.left_out == test.left_out == 0
    assert train.episodes == table.count_tasks("meta-train", found.spec) and found.spec.ways == 1
    assert [(one.name, one.holds) for one in found.columns] == [
        ("age", "numbers"),
        ("dose", "numbers"),
        ("colour", "categories"),
    ]
    assert [one.missing for one in found.columns] == pytest.approx([9 / 69, 0, 0]) and found.columns[2].values == "2"
    assert found.settings.startswith("--set source.target_mean=2") and found.rows == 69
    assert json.loads(json.dumps(found.to_dict()))["groups"] == 9


def test_a_table_of_labels(make_table: MakeTable) -> None:
    found = described(Path(make_table(binary=True).path), EpisodeSpec(shots=3, queries="rest"))
    assert found.parts[1].targets == "0.500 / 0.500 / 0.500" and found.parts[0].left_out == 1
    assert found.settings == "--set source.targets=binary"


def test_a_column_of_vectors_is_one_line(tmp_path: Path) -> None:
    from tests.data.tables.test_vectors import assays, imported

    (column,) = described(Path(imported(tmp_path, assays()).path), EpisodeSpec(shots=2, queries=1)).columns
    assert (column.name, column.holds, column.values) == ("fingerprint", "vectors", "12 numbers, as they are")
