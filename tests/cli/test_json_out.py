"""What is printed as JSON is read by any program."""

import json
import math

import pytest

from metaray.cli.json_out import print_json
from metaray.records.judged import Judged


def strict(text: str) -> object:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_number_that_is_none_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": (1.5, math.nan), "b": [{"c": -math.inf}], "d": "nan", "e": 3, "é": None})
    out = capsys.readouterr().out
    assert strict(out) == {"a": [1.5, None], "b": [{"c": None}], "d": "nan", "e": 3, "é": None} and "é" in out


def test_a_group_of_a_single_episode_has_no_interval(capsys: pytest.CaptureFixture[str]) -> None:
    judged = Judged("meta-test", "mse", (), (5, 5), (3, 3), ("a", "b"), {"mse": (1.0, 2.0)})
    print_json(judged.tree())
    found = strict(capsys.readouterr().out)
    assert isinstance(found, dict)
    assert found["group"][0] == {"name": "b", "scores": {"mse": {"mean": 2.0, "half_width": None, "episodes": 1}}}
