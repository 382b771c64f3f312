"""What `metaray data describe` finds out."""

import json
from pathlib import Path

import pytest

from metaray.data import ClassStore
from metaray.data.describe import describe_store
from metaray.data.draws import Split
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from metaray.plots.task_pictures import draw_episodes
from tests.data.conftest import MakeStore

PAIRS = EpisodeSpec(ways=2, shots=1, queries=1)


def test_a_store(tiny_store: Path, tiny_source: ClassStore, tmp_path: Path) -> None:
    found = describe_store(str(tiny_store), None, EpisodeSpec(ways=3, shots=1, queries=2))
    assert [row.part for row in found.rows] == ["meta-train", "meta-val", "meta-test"]
    assert sum(row.classes for row in found.rows) == found.classes
    assert found.rows[2].episodes == tiny_source.count_tasks("meta-test", EpisodeSpec(ways=3, shots=1, queries=2)) > 0
    assert found.shape == tiny_source.feature_shape
    json.dumps(found.to_dict())
    draw_episodes(found.source, tmp_path / "gallery.png", "meta-train", found.spec)
    assert (tmp_path / "gallery.png").read_bytes().startswith(b"\x89PNG")


def test_rotations_count_as_classes(tiny_store: Path) -> None:
    plain, turned = (
        describe_store(str(tiny_store), None, EpisodeSpec(ways=2, shots=1, queries=1), rotations=rotations)
        for rotations in (False, True)
    )
    assert [row.classes for row in turned.rows] == [4 * row.classes for row in plain.rows]


def test_too_many_ways_allow_no_episode(tiny_store: Path) -> None:
    found = describe_store(str(tiny_store), None, EpisodeSpec(ways=1000, shots=1, queries=1))
    assert [row.episodes for row in found.rows] == [0, 0, 0]


def test_an_unknown_scheme(tiny_store: Path) -> None:
    with pytest.raises(InputError, match=r"split scheme of .* 'vinyls'"):
        describe_store(str(tiny_store), "vinyls", EpisodeSpec(ways=2, shots=1, queries=1))


def test_groups_and_what_crosses_the_splits(make_store: MakeStore) -> None:
    splits: dict[Split, list[int]] = {"meta-train": [0, 1, 2], "meta-val": [3, 4], "meta-test": [5, 6]}
    path = str(make_store([3] * 7, splits, groups=["a", "a", "b", "b", "c", "c", "c"]))
    groups = describe_store(path, None, PAIRS).groups
    assert groups is not None and (groups.count, groups.sizes) == (3, "2 / 2 / 3")
    assert [row.groups for row in groups.rows] == [("a", "b"), ("b", "c"), ("c",)]
    assert [row.sizes for row in groups.rows] == ["1 / 1.5 / 2", "1 / 1 / 1", "2 / 2 / 2"]
    assert groups.across == {"default": ("b", "c")}
    found = describe_store(path, None, PAIRS, within_groups=True)
    assert [row.episodes for row in found.rows] == [36, 0, 36]
    assert found.to_dict()["groups"]["across"] == {"default": ("b", "c")}


def test_a_store_without_groups(tiny_store: Path) -> None:
    found = describe_store(str(tiny_store), None, PAIRS)
    assert found.groups is None and "groups" not in found.to_dict()
    with pytest.raises(InputError, match="within_groups is asked for"):
        describe_store(str(tiny_store), None, PAIRS, within_groups=True)
    with pytest.raises(InputError, match=r"ways: a task needs at least 2 classes \(got 1\)"):
        describe_store(str(tiny_store), None, EpisodeSpec(ways=1, shots=1, queries=1))
