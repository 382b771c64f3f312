"""Seeded damage: to bytes, to JSON, to tables. Each function is pure: the generator that it is given decides all."""

import copy
import json
import random
from collections.abc import Callable, Sequence
from typing import Any, cast

MOST_EDITS = 4

INTERESTING = (
    b"\x00",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"%s",
    b"\n",
    b"\r\n",
    b"'",
)


def damage_bytes(data: bytes, chance: random.Random) -> bytes:
    """Flip, cut, splice, repeat: one to four edits."""
    edited = bytearray(data)
    for _ in range(chance.randint(1, MOST_EDITS)):
        chance.choice(_EDITS)(edited, chance)
    return bytes(edited)


def _flip(data: bytearray, chance: random.Random) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _overwrite(data: bytearray, chance: random.Random) -> None:
    if data:
        at, word = chance.randrange(len(data)), chance.choice(INTERESTING)
        data[at : at + len(word)] = word


def _cut(data: bytearray, chance: random.Random) -> None:
    start, stop = _span(data, chance)
    del data[start:stop]


def _cut_end(data: bytearray, chance: random.Random) -> None:
    del data[chance.randint(0, len(data)) :]


def _insert(data: bytearray, chance: random.Random) -> None:
    at = chance.randint(0, len(data))
    data[at:at] = chance.choice(INTERESTING) * chance.choice((1, 2, 64))


def _splice(data: bytearray, chance: random.Random) -> None:
    (start, stop), (to, _) = _span(data, chance), _span(data, chance)
    data[to : to + stop - start] = data[start:stop]


def _repeat(data: bytearray, chance: random.Random) -> None:
    start, stop = _span(data, chance, most=4096)
    data[start:start] = data[start:stop] * chance.choice((1, 3, 50))


def _span(data: bytearray, chance: random.Random, most: int = 1 << 30) -> tuple[int, int]:
    start = chance.randint(0, len(data))
    return start, min(len(data), start + min(most, chance.choice((1, 4, 16, 256, len(data) + 1))))


_EDITS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip,
    _flip,
    _overwrite,
    _cut,
    _cut_end,
    _insert,
    _splice,
    _repeat,
)

EXTREMES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**63,
    2**64,
    -(2**63),
    10**400,
    0.5,
    -0.0,
    1e308,
    5e-324,
    "",
    " ",
    "\x00",
    "x" * 5000,
    "\ud800",
    "../../etc/passwd",
    "a/b",
    "nan",
    "1e5",
    "é",
    "models:/x/1",
    [],
    {},
    [None],
    [[]],
    {"": None},
    {"kind": "maml"},
)
"""Values that no field expects. Not all are JSON; `dumps` writes them so that they arrive all the same."""


def damage_json(text: str, chance: random.Random) -> bytes:
    """Other types, extremes, nesting, missing and doubled keys; now and then damage below JSON itself."""
    kind = chance.random()
    if kind < 0.15:
        return damage_bytes(text.encode(), chance)
    if kind < 0.25:
        return chance.choice(_WHOLE)(text, chance)
    tree = copy.deepcopy(json.loads(text))
    for _ in range(chance.randint(1, MOST_EDITS)):
        tree = _edit(tree, chance)
    return dumps(tree).encode("utf-8", "surrogatepass")


def dumps(tree: Any) -> str:
    """JSON, with NaN and infinity as Python writes them."""
    return json.dumps(tree, ensure_ascii=False)


def _edit(tree: Any, chance: random.Random) -> Any:
    places = list(_places(tree))
    if not places:
        return chance.choice(EXTREMES)
    parent, key = chance.choice(places)
    action = chance.randrange(6)
    if action == 0:
        del parent[key]
    elif action == 1:
        parent[key] = [parent[key]]
    elif action == 2:
        other, at = chance.choice(places)
        parent[key] = copy.deepcopy(other[at])
    elif action == 3 and isinstance(parent, dict):
        parent[chance.choice(("", "kind", "\x00", f"{key}x", "__class__"))] = parent[key]
    elif action == 4 and isinstance(parent[key], int | float):
        parent[key] = chance.choice((-parent[key], parent[key] * 10**6, parent[key] + 1, float("nan"), float("inf")))
    else:
        parent[key] = copy.deepcopy(chance.choice(EXTREMES))
    return tree


def _places(tree: Any) -> Any:
    items: Any = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(items):
        yield tree, key
        yield from _places(value)


def _deep(text: str, chance: random.Random) -> bytes:
    depth = chance.choice((100, 2_000, 100_000))
    opening, closing = chance.choice((("[", "]"), ('{"a":', "}")))
    return (opening * depth + "1" + closing * depth).encode()


def _nested_inside(text: str, chance: random.Random) -> bytes:
    tree = json.loads(text)
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    places = list(_places(tree))
    if places:
        parent, key = chance.choice(places)
        parent[key] = deep
    return dumps(tree).encode()


def _long_number(text: str, chance: random.Random) -> bytes:
    digits = "9" * chance.choice((400, 5_000))
    return text.replace(": 1", f": {digits}", 1).encode() if ": 1" in text else digits.encode()


def _doubled_key(text: str, chance: random.Random) -> bytes:
    tree = json.loads(text)
    if not isinstance(tree, dict) or not tree:
        return b'{"a": 1, "a": 2}'
    key = chance.choice(list(tree))
    return (dumps(tree)[:-1] + f", {json.dumps(key)}: {dumps(chance.choice(EXTREMES))}" + "}").encode(
        "utf-8", "surrogatepass"
    )


def _other_coding(text: str, chance: random.Random) -> bytes:
    return text.encode(chance.choice(("utf-16", "utf-8-sig", "utf-32")))


def _nothing(text: str, chance: random.Random) -> bytes:
    return chance.choice((b"", b" ", b"null", b"[]", b"{}", b'""', b"0", b"\x00" * 100, b"{" * 10))


_WHOLE: tuple[Callable[[str, random.Random], bytes], ...] = (
    _deep,
    _nested_inside,
    _long_number,
    _doubled_key,
    _other_coding,
    _nothing,
)


def damage_rows(rows: Sequence[dict[str, Any]], extremes: Sequence[Any], chance: random.Random) -> Any:
    """A pandas frame of the rows with other cells, columns, orders and sizes."""
    import pandas as pd

    columns = list(rows[0])
    cells = [[row[name] for name in columns] for row in rows]
    for _ in range(chance.randint(1, MOST_EDITS)):
        action = chance.randrange(7)
        row, column = chance.randrange(len(cells)), chance.randrange(len(columns)) if columns else 0
        if action == 0 and columns:
            del columns[column]
            for one in cells:
                del one[column]
        elif action == 1 and columns:  # a column of the same name, or of another
            columns.append(chance.choice((columns[column], "other", "", cast(str, 7), cast(str, None))))
            for one in cells:
                one.append(one[column])
        elif action == 2:
            cells.insert(row, list(cells[chance.randrange(len(cells))]))
        elif action == 3 and len(cells) > 1:
            del cells[row]
        elif action == 4 and columns:
            for one in cells:
                one[column] = chance.choice(extremes)
        elif columns:
            cells[row][column] = chance.choice(extremes)
    frame = pd.DataFrame(cells, columns=columns, dtype=object)
    if chance.random() < 0.2:
        frame.index = pd.Index(chance.choices(range(3), k=len(frame)))
    return frame
