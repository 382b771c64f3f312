"""How each episode went: by size, by group, as a file and as a table."""

import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from metaray.errors import InputError
from metaray.records.estimate import estimate
from metaray.records.judged import Judged

GROUPS = ("a", "b", "c", "d", "e", "a", "b", "c", "d", "e")
ERRORS = (1.0, 5.0, 2.0, 3.0, 4.0, 1.5, 5.5, 2.5, 3.5, 4.5)
JUDGED = Judged(
    split="meta-test",
    quality="mse",
    baselines=("nearest_neighbor", "ridge"),
    support=(5,) * 10,
    query=(3, 3, 3, 7, 7, 8, 9, 20, 21, 40),
    group=GROUPS,
    scores={"mse": ERRORS, "mae": ERRORS, "mse_ridge": (1.0,) * 10, "mse_before_training": (9.0,) * 10},
)


def test_it_comes_back_from_its_file_and_damage_is_told() -> None:
    assert Judged.from_json(JUDGED.file()) == JUDGED
    with pytest.raises(InputError, match=r"judged\.json"):
        Judged.from_json(JUDGED.file().replace(b"5.5", b"0.5"))
    uneven = replace(JUDGED, query=(3, 3))
    with pytest.raises(InputError, match="its columns are not those of the same episodes"):
        Judged.from_json(uneven.file())


def test_sizes_are_cut_by_quantiles() -> None:
    parts = JUDGED.parts("query")
    assert [part.name for part in parts] == ["3", "7", "8 to 9", "20 to 40"]
    assert sum(part.scores["mse"].episodes for part in parts) == 10
    assert parts[0].scores["mse"] == estimate([1.0, 5.0, 2.0]) and parts[0].scores["mse_ridge"].mean == 1.0
    assert JUDGED.parts("support") == [], "all alike"
    few = replace(JUDGED, support=(5, 10) * 5).parts("support")
    assert [part.name for part in few] == ["5", "10"]


@pytest.mark.parametrize("seed", range(5))
def test_every_episode_is_in_one_part(seed: int) -> None:
    sizes = np.random.default_rng(seed).integers(1, 9, 10)
    parts = replace(JUDGED, query=tuple(sizes.tolist())).parts("query")
    assert sum(part.scores["mse"].episodes for part in parts) == 10 and 2 <= len(parts) <= 4


def test_the_worst_group_comes_first() -> None:
    assert [part.name for part in JUDGED.parts("group")] == ["b", "e", "d", "c", "a"]
    better_is_more = replace(JUDGED, quality="auroc", baselines=(), scores={"auroc": ERRORS})
    assert [part.name for part in better_is_more.parts("group")] == ["a", "c", "d", "e", "b"]
    assert replace(JUDGED, group=()).parts("group") == []


@pytest.mark.parametrize("quality", ["mse", "auroc"])
def test_a_group_whose_score_is_no_number_is_the_worst(quality: str) -> None:
    for place in range(5):
        lost = tuple(math.nan if GROUPS[i] == "abcde"[place] else error for i, error in enumerate(ERRORS))
        parts = replace(JUDGED, quality=quality, baselines=(), scores={quality: lost}).parts("group")
        known = [part.scores[quality].mean for part in parts[1:]]
        assert parts[0].name == "abcde"[place] and known == sorted(known, reverse=quality == "mse")


def test_what_is_told() -> None:
    told = dict(JUDGED.told())
    assert list(told) == [
        "meta-test mse at 3 query examples",
        "meta-test mse at 7 query examples",
        "meta-test mse at 8 to 9 query examples",
        "meta-test mse at 20 to 40 query examples",
        "meta-test mse of b, among the worst of 5 groups",
        "meta-test mse of e, among the worst of 5 groups",
        "meta-test mse of d, among the worst of 5 groups",
    ]
    assert told["meta-test mse of b, among the worst of 5 groups"].endswith("(2 episodes); ridge regression 1.0000")
    assert json.loads(json.dumps(JUDGED.tree()))["group"][0]["scores"]["mse"]["mean"] == 5.25


def test_the_table_has_a_row_an_episode_with_every_digit() -> None:
    third = replace(JUDGED, scores=JUDGED.scores | {"mse": (1 / 3, *ERRORS[1:])})
    rows = list(csv.DictReader(io.StringIO(third.csv())))
    assert list(rows[0]) == ["episode", "group", "support", "query", *JUDGED.scores]
    assert [row["group"] for row in rows] == list(GROUPS) and float(rows[0]["mse"]) == 1 / 3
    assert "group" not in replace(JUDGED, group=()).csv()
