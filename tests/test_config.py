"""Frozen descriptions and what they say about wrong values."""

import math
from typing import Literal

import pytest
from pydantic import Field

from metaray.config import LONGEST_NAME, Config, check_name
from metaray.errors import InputError


class Inner(Config):
    rate: float = Field(default=0.5, ge=0)
    mode: Literal["fast", "slow"] = "fast"


class Outer(Config):
    count: int = Field(default=1, gt=0)
    inner: Inner = Inner()
    maybe: Inner | None = None


def refuse(values: object) -> str:
    with pytest.raises(InputError) as caught:
        Outer.parse(values, where="outer")  # type: ignore[arg-type]
    return str(caught.value)


def test_parse_and_compare_by_value() -> None:
    assert Outer.parse({"inner": {"rate": 1}}, where="outer") == Outer(inner=Inner(rate=1.0))
    assert Outer() == Outer() and hash(Outer()) == hash(Outer())
    with pytest.raises(ValueError, match="frozen"):
        Outer().count = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"count": 0}, ["outer: count: ", "greater than 0", "(got 0)"]),
        ({"inner": {"rate": math.inf}}, ["inner.rate: ", "finite"]),
        ({"inner": {"rate": math.nan}}, ["inner.rate: ", "finite"]),
        ({"count": 0, "inner": {"rate": -1}}, ["count: ", "; inner.rate: ", "(got -1)"]),
        ({"conut": 2}, ["unknown key 'conut'", "Did you mean 'count'"]),
        ({"inner": {"raet": 2}}, ["unknown key 'inner.raet'", "Did you mean 'inner.rate'"]),
        ({"maybe": {"raet": 2}}, ["unknown key 'maybe.raet'", "Did you mean 'maybe.rate'"]),
        ({"inner": {"mode": "fsat"}}, ["inner.mode: ", "'fsat'", "fast"]),
        ([1, 2], ["outer: ", "[1, 2]"]),
    ],
    ids=str,
)
def test_messages(values: object, parts: list[str]) -> None:
    message = refuse(values)
    assert message.startswith("outer: ") and "pydantic" not in message
    assert all(part in message for part in parts), message


def test_long_values_are_cut() -> None:
    assert len(refuse({"count": "x" * 10_000})) < 400


def test_constructing_refuses_as_well() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        Outer(count=-1)
    with pytest.raises(ValueError, match="conut"):
        Outer(conut=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("a/b", "a-b"),
        ("models:/x", "models-x"),
        ("my run", "my-run"),
        ("caf\u00e9", "cafe"),
        (".hidden", "hidden"),
        ("a\n", "a"),
        ("x" * 231, "x" * 230),
        ("\u732b", None),
        ("..", None),
        ("", None),
    ],
)
def test_names_that_folders_and_registries_cannot_have(name: str, near: str | None) -> None:
    with pytest.raises(InputError, match="run name .*: use letters, digits, '.', '_' and '-', without") as caught:
        check_name(name, "run name")
    assert str(caught.value).partition("; for instance ")[2] == (repr(near) if near else "")
    if near:
        assert check_name(near, "run name") == near


def test_names_that_they_can_have() -> None:
    for name in ("a", "0", "a.b_c-D9", "x" * LONGEST_NAME):
        assert check_name(name, "run name") == name
