"""JSON that lay in a file or came over a network: bounded, so that what is damaged or hostile is refused and no more.

What no file of ours holds is refused: keys that come twice, integers of many digits, nesting without end, NUL
characters and halves of surrogate pairs. Each would break `json.loads`, or pass it and break something later.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from metaray.errors import InputError

MOST_BYTES = 256 << 20
DEEPEST = 64
LONGEST = 40


def parse_json(text: str | bytes, *, where: str) -> Any:
    """Parse JSON text.

    Args:
        text: JSON text; bytes are decoded as UTF-8.
        where: Origin of the text, at the start of messages.

    Raises:
        InputError: If the text is not JSON, or is JSON that metaray never writes.
    """
    if len(text) > MOST_BYTES:
        raise InputError(f"{where}: {len(text)} bytes of JSON, of which at most {MOST_BYTES} are read")
    try:
        found = _DECODER.decode(text.decode() if isinstance(text, bytes) else text)
        _check(found)
    except RecursionError:
        raise InputError(f"{where}: not JSON: nested more than {DEEPEST} deep") from None
    except ValueError as error:
        raise InputError(f"{where}: not JSON: {error}") from None
    return found


def parse_object(text: str | bytes, *, where: str) -> dict[str, Any]:
    """Parse JSON text that must be an object; see `parse_json`.

    Raises:
        InputError: If the text is not JSON, or not an object.
    """
    found = parse_json(text, where=where)
    if not isinstance(found, dict):
        raise InputError(f"{where} is not a JSON object")
    return found


def once_each(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of its keys and values, for `json.loads`.

    Raises:
        ValueError: If a key comes twice, of which one would go without a word.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} comes twice")
    return found


def _integer(digits: str) -> int:
    # Before it is converted, which takes long for many digits, and of which Python refuses more than 4300.
    if len(digits) > LONGEST:
        raise ValueError(f"an integer of {len(digits)} digits, of which at most {LONGEST} are read")
    return int(digits)


def _check(found: Any) -> None:
    """Check all of a tree, without recursion, which is what it guards against."""
    waiting = [(found, 1)]
    while waiting:
        node, depth = waiting.pop()
        if isinstance(node, str):
            if "\0" in node:
                raise ValueError("a string with a NUL character")
            if not node.isascii():
                node.encode()  # refuses half a surrogate pair
        elif isinstance(node, dict | list):
            if depth > DEEPEST:
                raise RecursionError
            waiting.extend((child, depth + 1) for child in node)
            if isinstance(node, dict):
                waiting.extend((child, depth + 1) for child in node.values())


_DECODER = json.JSONDecoder(object_pairs_hook=once_each, parse_int=_integer)


def finite(tree: Any) -> Any:
    """A tree of JSON types with None in place of numbers that are none, for which JSON has no word."""
    if isinstance(tree, float):
        return tree if math.isfinite(tree) else None
    if isinstance(tree, Mapping):
        return {key: finite(one) for key, one in tree.items()}
    return [finite(one) for one in tree] if isinstance(tree, list | tuple) else tree
