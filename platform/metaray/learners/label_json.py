"""Labels of an adapted task in JSON: each comes back as the very value that it was, type and all."""

import base64
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import numpy as np

from metaray.containers import described
from metaray.errors import InputError
from metaray.json_text import parse_json

_WRITTEN: Mapping[type, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    float: ("float", float.hex, float.fromhex),
    bytes: (
        "bytes",
        lambda label: base64.b64encode(label).decode(),
        lambda text: base64.b64decode(text, validate=True),
    ),
    date: ("date", date.isoformat, date.fromisoformat),
    datetime: ("datetime", datetime.isoformat, datetime.fromisoformat),
    np.datetime64: ("datetime64", str, np.datetime64),
}
"""What JSON has no type for: the word for it, how it is written, and how it is read."""
_READ = {word: read for word, _, read in _WRITTEN.values()}


def labels_to_json(labels: Sequence[Hashable]) -> list[Any]:
    """Labels in JSON types: text, integers and booleans as they are, others as objects with their type.

    Raises:
        InputError: If a label cannot be written so that it is read back unchanged; the message names it.
    """
    return [_checked(label) for label in labels]


def labels_from_json(values: Sequence[Any]) -> tuple[Hashable, ...]:
    """Read labels from JSON types: the inverse of `labels_to_json`.

    Raises:
        ValueError: If `labels_to_json` never writes such values.
    """
    return tuple(map(_read, values))


def _checked(label: Hashable) -> Any:
    try:
        written = _written(label)
        found = _read(parse_json(json.dumps(written), where="label"))
    except (ValueError, TypeError):
        found = None
    if type(found) is not type(label) or found != label:
        raise InputError(
            f"the label {label!r} is {described(label)}, which a task can't be saved with; adapt it to labels that are "
            "texts, numbers, bytes, dates, or tuples of these"
        )
    return written


def _written(label: Hashable) -> Any:
    kind = type(label)
    if kind in (str, int, bool):
        return label
    if isinstance(label, tuple) and kind is tuple:
        return {"type": "tuple", "value": [_written(part) for part in label]}
    if kind not in _WRITTEN:
        raise TypeError
    word, write, _ = _WRITTEN[kind]
    return {"type": word, "value": write(label)}


def _read(value: Any) -> Hashable:
    if type(value) in (str, int, bool):
        found: Hashable = value
        return found
    if not isinstance(value, dict) or value.keys() != {"type", "value"}:
        raise ValueError(f"{value!r} is no label")
    word, inner = value["type"], value["value"]
    if word == "tuple" and isinstance(inner, list):
        return tuple(map(_read, inner))
    if word not in _READ or not isinstance(inner, str):
        raise ValueError(f"{value!r} is no label")
    return _READ[word](inner)  # type: ignore[no-any-return]
