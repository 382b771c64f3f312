"""A meta-batch of groups of rows that is drawn all at once holds, byte for byte, what is drawn task by task."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaray.config import replace
from metaray.data import GroupTable, table_sampling
from metaray.data.draws import SPLITS, Split
from metaray.data.tables.importing import import_table
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.sampler import sample_episode, sample_meta_batch
from metaray.errors import InputError
from tests.data.patients import SPLITS as PATIENTS
from tests.data.patients import made_table, patients
from tests.episodes.test_many_episodes import require_same

SIZES = (3, 4, 6, 7, 9, 40, 150, 700, 5, 12, 30, 8)
GROUPS: dict[Split, list[str]] = {split: [f"g{i}" for i in range(place, 12, 3)] for place, split in enumerate(SPLITS)}
COUNTS = st.one_of(st.integers(1, 5), st.just("rest"), st.tuples(st.integers(1, 2), st.integers(2, 3)))


def unequal(folder: Path, *, binary: bool, order_by: str | None) -> GroupTable:
    """Groups of 3 to 700 rows, of which one has a single positive and those in order have their labels in blocks."""
    generator, lines = np.random.default_rng(1), ["group,when,a,b,y"]
    for group, size in enumerate(SIZES):
        for row in range(size):
            label = int(row == 1) if group == 2 else (row // 2) % 2
            y: object = label if binary else round(float(generator.normal(group, 1)), 4)
            lines.append(f"g{group},{generator.integers(0, 50)},{generator.normal():.4f},{generator.normal():.4f},{y}")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    options: dict[str, Any] = {"order_by": order_by} if order_by else {"leave_out": ["when"]}
    report = import_table(
        folder / "rows.csv",
        folder / "rows.arrow",
        tasks=["group"],
        target="y",
        binary=binary,
        splits=GROUPS,
        **options,
    )
    return GroupTable(path=str(report.path), targets="binary" if binary else "regression")


def assays(folder: Path) -> GroupTable:
    """Wide form: rows that groups share, of whole numbers that the file holds in bytes."""
    generator, lines = np.random.default_rng(2), ["t0,t1,t2,t3," + ",".join(f"f{i}" for i in range(8))]
    for _ in range(90):
        cells = [str(generator.integers(0, 2)) if generator.random() < 0.6 else "" for _ in range(4)]
        lines.append(",".join([*cells, *(str(number) for number in generator.integers(0, 200, 8))]))
    (folder / "wide.csv").write_text("\n".join(lines) + "\n")
    splits: dict[Split, list[str]] = {"meta-train": ["t0", "t1"], "meta-val": ["t2"], "meta-test": ["t3"]}
    options: dict[str, Any] = {"as_is": [f"f{i}" for i in range(8)]}
    report = import_table(
        folder / "wide.csv",
        folder / "wide.arrow",
        tasks=["t0", "t1", "t2", "t3"],
        wide=True,
        binary=True,
        splits=splits,
        **options,
    )
    return GroupTable(path=str(report.path), targets="binary")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, GroupTable]:
    """Values and labels, in order and in none; a shared one; one of which all groups but one are of a size."""
    found: dict[str, GroupTable] = {}
    for binary in (False, True):
        for order_by in (None, "when"):
            name = f"{'labels' if binary else 'values'}{' in order' if order_by else ''}"
            found[name] = unequal(tmp_path_factory.mktemp("rows"), binary=binary, order_by=order_by)
    found["centred"] = replace(found["values"], centred=True, target_mean=3.0, target_std=2.5)
    found["wide"] = assays(tmp_path_factory.mktemp("wide"))
    found["patients"] = made_table(tmp_path_factory.mktemp("patients"), patients(), splits=PATIENTS)
    return found


NAMES = ["values", "values in order", "labels", "labels in order", "centred", "wide", "patients"]


@settings(max_examples=150)
@given(
    name=st.sampled_from(NAMES),
    shots=st.one_of(st.integers(1, 5), st.tuples(st.integers(1, 2), st.integers(2, 3))),
    queries=COUNTS,
    split=st.sampled_from(SPLITS),
    seed=st.integers(0, 2**64 - 1),
    indices=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=9),
)
def test_tables(
    tables: dict[str, GroupTable],
    name: str,
    shots: Any,
    queries: Any,
    split: Split,
    seed: int,
    indices: list[int],
) -> None:
    source, spec = tables[name], EpisodeSpec(shots=shots, queries=queries)
    try:
        source.check(split, spec)
    except InputError as refused:
        if spec.smallest == spec.largest:
            with pytest.raises(InputError) as caught:
                sample_meta_batch(source, spec, split, seed, indices)
            assert str(caught.value) == str(refused)
        return
    require_same(source, spec, split, seed, indices)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("queries", [1, "rest"])
def test_all_is_drawn_side_by_side(
    tables: dict[str, GroupTable], name: str, queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = EpisodeSpec(shots=1, queries=queries)
    expected = [sample_episode(tables[name], spec, "meta-train", 0, index) for index in range(50)]
    monkeypatch.delattr(GroupTable, "sample_task")
    batch = sample_meta_batch(tables[name], spec, "meta-train", 0, range(50))
    shapes = [one.task.query.x.shape for one in expected]
    assert len(batch.stacks) == 1 + sum(one != other for one, other in pairwise(shapes))
    assert [one.task.class_ids[0] for one in expected] == [ids[0] for one in batch.stacks for ids in one.task.class_ids]


def test_groups_too_large_to_lie_side_by_side_are_drawn_one_by_one(
    tables: dict[str, GroupTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    sample_task = GroupTable.sample_task

    def counted(*arguments: Any) -> Any:
        drawn.append(1)
        return sample_task(*arguments)

    spec = EpisodeSpec(shots=2, queries="rest")
    monkeypatch.setattr(table_sampling, "MOST_WORDS", 9 * 700 - 1)
    monkeypatch.setattr(GroupTable, "sample_task", counted)
    found = sample_meta_batch(tables["values"], spec, "meta-val", 0, range(9))
    assert len(drawn) == 9 and len(found) == 9
    sample_meta_batch(tables["values"], spec, "meta-val", 0, range(8))
    assert len(drawn) == 9
