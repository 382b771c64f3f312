"""Settings as text for people, without what must not be told."""

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from metaray.errors import redacted
from metaray.experiment.overrides import flatten
from metaray.uris import HIDDEN, names_secret

LONGEST = 400
"""Characters of a value: a tokenizer's vocabulary has a million."""
ACCESS_KEY = re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")
VALUE = r"""('[^']*'|"[^"]*"|[^\s'"]+)"""
OPTION = re.compile(rf"(?<![\w.-])(--[A-Za-z][\w.-]*(?:=|\s+)|[A-Za-z_][\w.-]*=){VALUE}")

NOTHING = ("", "None", "null")
SETTING = re.compile(r"(?P<quote>['\"]?)(?P<key>[A-Za-z_][\w.-]*)=(?P<value>.+?)(?P=quote)", re.DOTALL)


def clean(text: object) -> str:
    """A text that may be shown: no secret of a URI, of an option named after one, nor an access key; no controls."""
    found = ACCESS_KEY.sub(HIDDEN, redacted(str(text)))
    found = OPTION.sub(_hidden, found)
    return "".join(" " if unicodedata.category(letter) == "Cc" and letter not in "\n\t" else letter for letter in found)


def settings_of(tree: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a description by their dotted keys, those that hold secrets masked and long ones cut."""
    return {key: _cut(clean(value)) for key, value in flatten(hidden_tree(tree)).items()}


def described(tree: Any) -> str:
    """A part of an experiment in a line: its kind, and its fields with their values."""
    if not isinstance(tree, Mapping):
        return clean(tree)
    set_here = {key: value for key, value in tree.items() if key != "kind" and value is not None}
    fields = ", ".join(f"{key} {value}" for key, value in settings_of(set_here).items())
    kind = clean(tree.get("kind", ""))
    return f"{kind} ({fields})" if kind and fields else kind or fields


def json_of(tree: Mapping[str, Any]) -> str:
    """A description as indented JSON with secrets masked."""
    return clean(json.dumps(hidden_tree(tree), indent=2, sort_keys=True, ensure_ascii=False))


def hidden_tree(tree: Any) -> Any:
    """A tree of JSON types with secrets masked."""
    if isinstance(tree, Mapping):
        return {key: HIDDEN if _holds(str(key), value) else hidden_tree(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [hidden_tree(one) for one in tree]
    return redacted(tree) if isinstance(tree, str) else tree


def _holds(key: str, value: Any) -> bool:
    """Whether a field is named after a secret and holds text, or anything below; a count of tokens is a number."""
    told = isinstance(value, str) and value not in NOTHING
    return names_secret(key.rpartition(".")[2]) and (
        told or (isinstance(value, Mapping | list | tuple) and bool(value))
    )


def _tells(key: str, value: str) -> bool:
    """Whether an option is named after a secret and is given one; a number of tokens is none."""
    counts = re.fullmatch(r"[-+.\deE]+", value) and re.search(r"tokens?(?![a-z])", key, re.IGNORECASE)
    return _holds(key, value) and not counts


def _hidden(found: re.Match[str]) -> str:
    name, value = found.groups()
    if _tells(name.strip("-= \t\n"), value.strip("'\"")):
        return f"{name}{HIDDEN}"
    setting = SETTING.fullmatch(value)  # as after --set
    if setting is not None and _tells(setting["key"], setting["value"]):
        return f"{name}{setting['quote']}{setting['key']}={HIDDEN}{setting['quote']}"
    return found[0]


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text)} characters)"
