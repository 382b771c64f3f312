"""JSON that somebody else wrote."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaray.errors import InputError
from metaray.json_text import DEEPEST, LONGEST, parse_json, parse_object

NUMBERS = st.integers(-(10**38), 10**38) | st.floats(allow_nan=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.recursive(st.none() | st.booleans() | NUMBERS | TEXTS, lambda v: st.lists(v) | st.dictionaries(TEXTS, v)))
def test_what_we_write_is_read(value: Any) -> None:
    assert parse_json(json.dumps(value), where="x") == value == parse_json(json.dumps(value).encode(), where="x")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[" * 100_000 + "]" * 100_000, f"nested more than {DEEPEST} deep"),
        ('{"a":' * 100_000, f"nested more than {DEEPEST} deep"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), f"nested more than {DEEPEST} deep"),
        ("9" * 5000, "an integer of 5000 digits"),
        ("1" + "0" * LONGEST, "an integer of 41 digits"),
        ("-" + "9" * 5_000_000, "an integer of 5000001 digits"),
        (r'["a\u0000b"]', "a string with a NUL character"),
        (r'{"a\u0000b": 1}', "a string with a NUL character"),
        ('["a\0b"]', "Invalid control character"),
        (r'"\ud800"', "surrogates not allowed"),
        ('{"a": 1, "b": {"c": 1, "c": 1}}', "the key 'c' comes twice"),
        (b"\xff\xfe{}", "can't decode byte"),
        (b"\xef\xbb\xbf{}", "Expecting value"),
    ],
)
def test_what_nothing_of_ours_holds_is_refused(text: str | bytes, what: str) -> None:
    with pytest.raises(InputError, match=f"x.json: not JSON: .*{what}"):
        parse_json(text, where="x.json")


def test_as_deep_as_may_be() -> None:
    assert parse_json("[" * DEEPEST + "]" * DEEPEST, where="x") is not None


@pytest.mark.parametrize("text", ["[]", "3", "null", '"a"'])
def test_no_object(text: str) -> None:
    with pytest.raises(InputError, match="x is not a JSON object"):
        parse_object(text, where="x")
