"""Tasks from groups of rows: pure, disjoint, in order where there is one, refused with the numbers where too small."""

from math import comb

import numpy as np
import pytest

from metaray.config import replace
from metaray.data.draws import SPLITS, Draws
from metaray.data.episode_spec import EpisodeSpec
from metaray.data.group_table import GroupTable
from metaray.data.source import SameData
from metaray.data.task import Task, same_examples
from metaray.errors import InputError
from metaray.imports import dump_kind, parse_kind
from tests.data.patients import MakeTable

SPECS = [
    EpisodeSpec(shots=2, queries=3),
    EpisodeSpec(shots=2, queries="rest"),
    EpisodeSpec(shots=(1, 3), queries=(1, 2)),
]


def sample(table: GroupTable, index: int, spec: EpisodeSpec, split: str = "meta-train") -> Task:
    return table.sample_task(Draws(3, split, index), split, spec)  # type: ignore[arg-type]


def rows_of(table: GroupTable, x: np.ndarray) -> list[int]:
    """The rows of the file that these are."""
    stored = table._open().file.x
    places = (x[:, None] == stored[None]).all(-1)
    assert (places.sum(1) == 1).all()
    found: list[int] = places.argmax(1).tolist()
    return found


def test_round_trip_through_json(make_table: MakeTable) -> None:
    from metaray.data import SOURCES, Source

    table = replace(make_table(), target_mean=20.0, target_std=2.0)
    again = parse_kind(dump_kind(table, SOURCES), SOURCES, Source, what="source")
    assert again == table and again.fingerprint == table.fingerprint
    assert again.fingerprint != replace(table, target_mean=21.0).fingerprint


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
def test_tasks_are_pure_and_of_one_group(make_table: MakeTable, spec: EpisodeSpec, binary: bool, ordered: bool) -> None:
    table = make_table(binary=binary, order_by="day" if ordered else None)
    if binary:
        spec = replace(spec, shots=1, queries=1) if spec.queries != "rest" else replace(spec, shots=1)
    groups = set()
    offsets = table._open().file.offsets
    for index in range(12):
        task = sample(table, index, spec)
        support, query = rows_of(table, task.support.x), rows_of(table, task.query.x)
        assert same_examples(task, sample(table, index, spec)) and not set(support) & set(query)
        assert len(set(support)) == len(support) and len(set(query)) == len(query)
        (group,) = set((np.searchsorted(offsets, [*support, *query], side="right") - 1).tolist())
        groups.add(group)
        if spec.queries == "rest" and not ordered:
            assert len(support) + len(query) == np.diff(offsets)[group]
        if ordered:
            assert max(support) < min(query)
        table.task.check_task(task.support.y, task.query.y)
        assert task.support.y.dtype == (np.int64 if binary else np.float32)
    assert len(groups) > 2


def test_rows_lie_in_their_order(make_table: MakeTable) -> None:
    """Days fall from row to row of the raw table, so the order of the file is the reverse; days are not seen."""
    table = make_table(order_by="day")
    names = [column.name for column in table.preprocessing.columns]
    assert names == ["age", "dose", "colour"] and table.drawn_together == "support before query by day"
    file = table._open().file
    first = rows_of(table, file.x[file.rows(1)])
    assert first == sorted(first)
    assert file.x[file.rows(1)][:, 2].tolist() == [
        0,
        0,
        0,
        0,
        0,
        0,
        1,
        0,
    ]  # the age of row 1 is missing, which is the last but one by day


def test_standardised_on_meta_train_alone(make_table: MakeTable) -> None:
    table = make_table()
    file, meta = table._open().file, table.meta
    train = np.concatenate([file.rows(group) for group in meta.splits["meta-train"]])
    for split in SPLITS[:1]:
        assert meta.splits[split] == (0, 1, 2, 3, 4)
    known = file.x[train, 2] == 0
    for values in (file.x[train, 0][known], file.x[train, 1]):
        np.testing.assert_allclose([values.mean(), values.std()], [0, 1], atol=1e-5)
    assert abs(float(file.x[:, 1].mean())) > 1e-4
    assert meta.target_mean == pytest.approx(float(file.y[train].mean()), rel=1e-5)


def test_scaled_targets_keep_their_units_in_scores(make_table: MakeTable) -> None:
    import torch

    plain = make_table()
    scaled = replace(plain, target_mean=plain.meta.target_mean, target_std=plain.meta.target_std)
    spec = SPECS[0]
    one, other = sample(plain, 0, spec), sample(scaled, 0, spec)
    np.testing.assert_allclose(other.query.y * scaled.target_std + scaled.target_mean, one.query.y, rtol=1e-5)
    scores = [
        float(table.task.judged(torch.zeros_like(y) + y.mean(), y))
        for table, y in ((plain, torch.from_numpy(one.query.y)), (scaled, torch.from_numpy(other.query.y)))
    ]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)


def test_groups_too_small_are_left_out_and_counted(make_table: MakeTable) -> None:
    table, spec = make_table(), EpisodeSpec(shots=4, queries=3)
    assert table.left_out("meta-train", spec) == ["p0"]  # it has 5 rows
    table.check("meta-train", spec)
    assert table.count_tasks("meta-train", spec) == 4 * comb(8, 4) * comb(4, 3)
    large = EpisodeSpec(shots=5, queries=4)
    with pytest.raises(
        InputError, match="none of the 2 groups of meta-val has enough rows: 5 for the support and 4 mo"
    ):
        table.check("meta-val", large)
    with pytest.raises(InputError, match="the largest, 'p5', has 8 rows"):
        sample(table, 0, large, "meta-val")


def test_what_is_refused(make_table: MakeTable) -> None:
    table = make_table(binary=True)
    with pytest.raises(InputError, match="has 4 negatives and 4 positives"):
        table.check("meta-test", EpisodeSpec(shots=4, queries=1))
    with pytest.raises(InputError, match=r"set source\.targets=binary"):
        replace(table, targets="regression").check("meta-test", SPECS[0])
    with pytest.raises(InputError, match="ways must be 1"):
        table.check("meta-test", EpisodeSpec(ways=2, shots=1, queries=1))
    with pytest.raises(InputError, match="target_mean and target_std are of targets that are values"):
        replace(table, target_std=2.0)
    with pytest.raises(InputError, match="no such table"):
        GroupTable(path="/nowhere.arrow").check("meta-test", SPECS[0])
    assert GroupTable(path="/nowhere.arrow").drawn_together == ""  # its description is told all the same


def test_another_table_in_its_place_is_noticed(make_table: MakeTable) -> None:
    table = make_table()
    same = SameData(table)
    same.check()
    make_table(leave_out=["day", "dose"])
    with pytest.raises(InputError, match="the data changed while they were in use"):
        same.check()
