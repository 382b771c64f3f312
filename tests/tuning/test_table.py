"""The trials of a search as data."""

import json
import math
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaray.tuning.table import as_rows, is_schedule, searched_keys, to_json, to_parquet
from metaray.tuning.trial import ENDED, Objective, Trial, TrialScore

ACCURACY = Objective("accuracy", highest=True)
FIXED = [
    *("number", "name", "status", "why", "value", "half_width", "best_step", "best_episodes", "episodes"),
    *("num_episodes", "seconds", "tracking_run", "winner", "curve"),
]
TRIALS = [
    Trial(
        0,
        {"inner.lr": 0.1, "steps": 3},
        800,
        "finished",
        curve=(TrialScore(100, 400, 0.7, 0.02), TrialScore(200, 800, 0.6)),
        tracking_run="abc",
        seconds=1.5,
    ),
    Trial(1, {"inner.lr": math.nan, "steps": 4}, 800, "failed", "out of memory", (TrialScore(100, 400, math.inf),)),
    Trial(2, {"steps": 5}, 800),
]


def table_of(trials: list[Trial]) -> pa.Table:
    return pq.read_table(pa.BufferReader(to_parquet(trials, ACCURACY)))


def column(*values: Any, key: str = "key") -> pa.ChunkedArray:
    return table_of([Trial(number, {key: value}, 1) for number, value in enumerate(values)])[key]


def test_a_row_tells_its_trial() -> None:
    first, second, third = as_rows(TRIALS, ACCURACY)
    assert first == {
        "number": 0,
        "name": "trial-0000",
        "status": "finished",
        "why": "",
        "settings": {"inner.lr": 0.1, "steps": 3},
        "objective": "accuracy",
        "value": 0.7,
        "half_width": 0.02,
        "best_step": 100,
        "best_episodes": 400,
        "episodes": 800,
        "num_episodes": 800,
        "seconds": 1.5,
        "tracking_run": "abc",
        "winner": True,
        "curve": [
            {"step": 100, "episodes": 400, "value": 0.7, "half_width": 0.02},
            {"step": 200, "episodes": 800, "value": 0.6, "half_width": None},
        ],
    }
    assert (second["status"], second["why"], second["winner"]) == ("failed", "out of memory", False)
    assert second["settings"] == {"inner.lr": None, "steps": 4}
    assert (second["value"], second["best_step"], second["episodes"]) == (None, None, 400)
    assert second["curve"] == [{"step": 100, "episodes": 400, "value": None, "half_width": None}]
    assert (third["settings"], third["curve"], third["tracking_run"]) == ({"steps": 5}, [], None)


def test_json_is_the_rows() -> None:
    data = to_json(TRIALS, ACCURACY)
    assert data.endswith(b"]\n")
    assert b"NaN" not in data and b"Infinity" not in data
    assert json.loads(data) == as_rows(TRIALS, ACCURACY)
    assert json.loads(to_json([], ACCURACY)) == []


def test_parquet_is_the_rows_with_a_column_a_field() -> None:
    table = table_of(TRIALS)
    assert table.column_names == [*FIXED[:4], "inner.lr", "steps", *FIXED[4:]]
    expected = [
        {name: value for name, value in row.items() if name not in ("settings", "objective")}
        | {key: row["settings"].get(key) for key in ("inner.lr", "steps")}
        for row in as_rows(TRIALS, ACCURACY)
    ]
    assert table.to_pylist() == expected
    assert table.schema.metadata[b"objective"] == b"accuracy"


def test_no_trial_is_a_table_without_searched_columns() -> None:
    table = table_of([])
    assert (table.num_rows, table.column_names) == (0, FIXED)
    assert table.schema == table_of([Trial(0, {}, 1)]).schema
    parts = [("step", pa.int64()), ("episodes", pa.int64()), ("value", pa.float64()), ("half_width", pa.float64())]
    found = table.schema.field("curve").type.value_type
    assert [(part.name, part.type) for part in found] == parts


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, 2], pa.int64(), [1, 2]),
        ([1, None], pa.int64(), [1, None]),
        ([1, 2.5], pa.float64(), [1.0, 2.5]),
        ([0.1, math.nan], pa.float64(), [0.1, None]),
        (["a", "b"], pa.string(), ["a", "b"]),
        ([True, False], pa.bool_(), [True, False]),
        ([None, None], pa.string(), [None, None]),
        ([1, True], pa.string(), ["1", "true"]),
        ([1, "a"], pa.string(), ["1", '"a"']),
        ([2**63, 1], pa.string(), ["9223372036854775808", "1"]),
        ([10**400, 0.5], pa.string(), ["1" + "0" * 400, "0.5"]),
        ([[1, math.inf], {"steps": [0]}], pa.string(), ["[1, null]", '{"steps": [0]}']),
    ],
    ids=str,
)
def test_a_column_keeps_its_type_where_it_has_one(values: list[Any], kind: pa.DataType, expected: list[Any]) -> None:
    found = column(*values)
    assert found.type == kind
    assert found.to_pylist() == expected


def test_a_field_named_as_another_column_is_called_otherwise() -> None:
    table = table_of([Trial(0, {"name": "a", "settings.name": "b", "curve": 1, "seed": 2}, 1)])
    assert table["name"].to_pylist() == ["trial-0000"]
    assert table["settings.name"].to_pylist() == ["b"]
    assert table["settings.settings.name"].to_pylist() == ["a"]
    assert table["settings.curve"].to_pylist() == [1]
    assert table["seed"].to_pylist() == [2]


def test_text_that_utf8_cannot_hold_does_not_break_it() -> None:
    trials = [Trial(0, {"a": "\udcff"}, 1, "failed", "no file \udcff")]
    assert table_of(trials)["why"].to_pylist() == ["no file ?"]
    assert json.loads(to_json(trials, ACCURACY))[0]["settings"] == {"a": "?"}


def test_fields_are_in_the_order_of_the_trials() -> None:
    assert searched_keys(TRIALS) == ["inner.lr", "steps"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"steps": [0, 5], "values": [0.1, 1]}, True),
        ({"steps": [0], "values": [0.1, 1]}, False),
        ({"steps": [], "values": []}, False),
        ({"steps": [0], "values": ["a"]}, False),
        ({"steps": [0], "values": [True]}, False),
        ({"steps": 0, "values": 1}, False),
        ({"steps": [0], "values": [1], "more": 1}, False),
        ([0], False),
        (None, False),
    ],
    ids=str,
)
def test_what_a_schedule_is(value: Any, expected: bool) -> None:
    assert is_schedule(value) is expected


numbers = st.integers(0, 10**9)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3))
keys = st.sampled_from(["a", "b.c", "name", "settings.name", "value"])
trials = st.lists(
    st.builds(
        Trial,
        number=numbers,
        settings=st.dictionaries(keys, values),
        num_episodes=numbers,
        status=st.sampled_from(ENDED),
        why=st.text(max_size=5),
        curve=st.lists(st.builds(TrialScore, numbers, numbers, st.floats(), st.floats()), max_size=3).map(tuple),
        tracking_run=st.none() | st.text(max_size=3),
        seconds=st.floats(),
    ),
    max_size=4,
)


@given(trials)
def test_any_trials_become_strict_json_and_a_table(trials: list[Trial]) -> None:
    rows = as_rows(trials, ACCURACY)
    assert json.loads(to_json(trials, ACCURACY)) == rows
    table = table_of(trials)
    assert len(table.column_names) == len(FIXED) + len(searched_keys(trials))
    assert [{name: row[name] for name in FIXED} for row in table.to_pylist()] == [
        {name: row[name] for name in FIXED} for row in rows
    ]
