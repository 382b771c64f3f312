"""Stores whose content was compared with their fingerprint on this node, so that later starts need not read them whole.

What was found out is kept in the cache, in `verified`, a small file a store: the size, times and inode that it had. A
store that has others by now is read whole again, and so is one whose record is damaged or gone.
"""

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from metaray.data.cache import cache_folder
from metaray.data.store_file import StoreFile, read_store
from metaray.errors import InputError
from metaray.json_text import parse_json

VERIFIED_FOLDER = "verified"
MOST_RECORDS = 512
RESTS_S = 2.0
"""Coarsest resolution of file times in seconds: a more recent file may change again without changing its times."""
TRIES = 3

T = TypeVar("T")


def stamp(path: Path) -> tuple[int, ...]:
    """Properties of a file that change when it is changed or replaced: device, inode, size and times in ns.

    Raises:
        OSError: If there is no such file.
    """
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def stamp_of(path: Path, read: Callable[[Path], object]) -> tuple[int, ...]:
    """The stamp of a file; if there is no such file, `read` raises the message.

    Raises:
        InputError: If `read` raises it.
        OSError: If the file is missing, although `read` raises nothing.
    """
    try:
        return stamp(path)
    except (OSError, ValueError):
        read(path)
        raise


def open_store(path: Path, *, verify: bool = False) -> StoreFile:
    """Open a class store, verified now or earlier on this node; see `open_verified`.

    Raises:
        InputError: If the file is invalid; the message says what would be right.
    """
    return open_verified(path, read_store, verify=verify)


def open_verified(path: Path, read: Callable[..., T], *, verify: bool = False) -> T:
    """Open a file, memory-mapped, whose contents were compared with its fingerprint now or earlier on this node.

    Args:
        path: Path of the file.
        read: Function that opens the file, called as read(path, verify=...), such as `read_store`.
        verify: Whether to compare the contents now, even if that was done before.

    Raises:
        InputError: If the file is invalid; the message says what would be right.
    """
    for _ in range(TRIES):
        now_s = time.time()
        before = _stamp(path)
        known = before is not None and not verify and _record(path) == _facts(path, before)
        opened = read(path, verify=not known)
        if before is None or before != _stamp(path):
            continue  # replaced meanwhile
        if not known and now_s - max(before[-2:]) / 1e9 > RESTS_S:
            _write(path, _facts(path, before))
        return opened
    raise InputError(f"{path}: changes while it is read: wait until whoever writes it is done")


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        return stamp(path)
    except (OSError, ValueError):
        return None  # who reads it says what is wrong


def _facts(path: Path, seen: tuple[int, ...]) -> dict[str, Any]:
    return {"path": os.path.realpath(path), "stamp": list(seen)}


def _file(path: Path) -> Path:
    return cache_folder(VERIFIED_FOLDER) / f"{hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()}.json"


def _record(path: Path) -> Any:
    try:
        return parse_json(_file(path).read_bytes(), where=VERIFIED_FOLDER)
    except (OSError, InputError):
        return None


def _write(path: Path, facts: dict[str, Any]) -> None:
    """Whole, since other processes read it; a cache that takes nothing costs another look at the store, no more."""
    file = _file(path)
    beside = file.with_suffix(f".{uuid.uuid4().hex}")
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            beside.write_text(json.dumps(facts))
            beside.replace(file)
        finally:
            beside.unlink(missing_ok=True)
        _prune(file.parent)


def _prune(folder: Path) -> None:
    """Forget the oldest records, most of them of files that are gone."""
    records = list(folder.iterdir())
    if len(records) > MOST_RECORDS:
        records.sort(key=lambda record: record.stat().st_mtime_ns)
        for record in records[: len(records) // 2]:
            record.unlink(missing_ok=True)
