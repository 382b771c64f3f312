"""The metrics journal: what was measured at which step, on disk before anyone else hears of it.

Entries gather in memory for a moment and are written as one segment. A step that a run does again, because it was
killed after its last checkpoint, has its entries in the journal already: the first ones stay. So whoever is fed from
the journal, MLflow first of all, sees each (key, step) once, at one time, with one value.
"""

import json
import re
import time
import uuid
from collections.abc import Sequence
from typing import NamedTuple

from metaray.training.storage import Storage

FOLDER = "metrics"
SEGMENT = re.compile(r"^\d{6,}-[0-9a-f]{8}\.jsonl$")
FLUSH_EVERY_S, FLUSH_EVERY_REMOTE_S = 2.0, 20.0


class Metric(NamedTuple):
    """One metric: a dotted or slashed key, its value, the outer step, milliseconds since the epoch."""

    key: str
    value: float
    step: int
    time_ms: int


class Journal:
    """Appends segments to a run's storage; only rank 0 has one.

    Args:
        storage: of the run.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.entries = read_journal(storage)
        """All that is on disk, by step."""
        self._known = {(entry.key, entry.step) for entry in self.entries}
        self._next = max((int(name.partition("-")[0]) for name in _segments(storage)), default=-1) + 1
        self._writer = uuid.uuid4().hex[:8]  # two writers, of whom one believes the other dead, overwrite nothing
        self._pending: list[Metric] = []
        self._every_s = FLUSH_EVERY_S if storage.is_local else FLUSH_EVERY_REMOTE_S
        self._flushed_s = float("-inf")

    def append(self, entries: Sequence[Metric]) -> None:
        """Remember entries until the next flush, but for those that an earlier process has measured."""
        self._pending.extend(entry for entry in entries if (entry.key, entry.step) not in self._known)
        self._known.update((entry.key, entry.step) for entry in entries)

    def flush(self, *, now: bool = False) -> list[Metric]:
        """Write what gathered, where that is due (or `now`); returns what reached the disk by this.

        Raises:
            OSError: if it cannot be written; the entries stay for the next flush.
        """
        if not self._pending or not (now or time.monotonic() - self._flushed_s >= self._every_s):
            return []
        self._flushed_s = time.monotonic()
        text = "".join(json.dumps(entry._asdict()) + "\n" for entry in self._pending)
        self._storage.write(f"{FOLDER}/{self._next:06d}-{self._writer}.jsonl", text.encode())
        self._next += 1
        written, self._pending = self._pending, []
        return written


def read_journal(storage: Storage) -> list[Metric]:
    """All entries of a run, by step and key. Lines that are not what was written are left out."""
    found: dict[tuple[str, int], Metric] = {}
    for name in _segments(storage):
        for line in storage.read(f"{FOLDER}/{name}").split(b"\n"):
            entry = _parsed(line)
            if entry is not None:
                found.setdefault((entry.key, entry.step), entry)
    return sorted(found.values(), key=lambda entry: (entry.step, entry.key))


def _segments(storage: Storage) -> list[str]:
    return [name for name in storage.names(FOLDER) if SEGMENT.match(name)]


def _parsed(line: bytes) -> Metric | None:
    try:
        return Metric(**json.loads(line))
    except (ValueError, TypeError):
        return None
