"""The metrics journal: what was measured at which step, on disk before anyone else hears of it.

Entries gather in memory for a moment and are written as one segment. A step that a run does again, because it was
killed after its last checkpoint, has its entries in the journal already: the first ones stay. So whoever is fed from
the journal, MLflow first of all, sees each (key, step) once, at one time, with one value.

A line of a segment holds one entry, its place among the segment's lines, how many these are, and its own checksum. So
what was damaged or cut off is noticed and left out, and the rest is read. Older segments have entries alone.
"""

import json
import re
import time
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from metaray.errors import InputError
from metaray.json_text import parse_object
from metaray.manifest import CHECKSUM, checksum
from metaray.records.storage import Storage

JOURNAL_FOLDER = "metrics"
SEGMENT = re.compile(r"^\d{6,}-[0-9a-f]{8}\.jsonl$")
FLUSH_EVERY_S, FLUSH_EVERY_REMOTE_S = 2.0, 20.0


class Metric(NamedTuple):
    """One metric: a dotted or slashed key, its value, the outer step, and the time in ms since the epoch."""

    key: str
    value: float
    step: int
    time_ms: int


class Journal:
    """Appends segments of metrics to a run's storage; only rank 0 has a journal.

    Args:
        storage: Storage of the run.
        segments: Number of segments known to have been written.
    """

    def __init__(self, storage: Storage, segments: int = 0) -> None:
        self._storage = storage
        reader = JournalReader(storage)
        self.entries = reader.read()
        """All that is on disk, by step."""
        self.damage = reader.damage(segments)
        """What could not be read of it; such entries are measured again where the run does their steps again."""
        self._known = {(entry.key, entry.step) for entry in self.entries}
        self.segments = max(reader.count, segments)
        """How many were written, whether they are there or not."""
        self._writer = uuid.uuid4().hex[:8]  # two writers, of whom one believes the other dead, overwrite nothing
        self._pending: list[Metric] = []
        self._every_s = FLUSH_EVERY_S if storage.is_local else FLUSH_EVERY_REMOTE_S
        self._flushed_s = float("-inf")

    def append(self, entries: Sequence[Metric]) -> None:
        """Keep entries until the next flush, except those that an earlier process has recorded."""
        self._pending.extend(entry for entry in entries if (entry.key, entry.step) not in self._known)
        self._known.update((entry.key, entry.step) for entry in entries)

    def flush(self, *, now: bool = False) -> list[Metric]:
        """Write the kept entries if it is time (or if `now`); returns the entries written.

        Raises:
            OSError: If the segment cannot be written; the entries are kept for the next flush.
        """
        if not self._pending or not (now or time.monotonic() - self._flushed_s >= self._every_s):
            return []
        self._flushed_s = time.monotonic()
        self._storage.write(f"{JOURNAL_FOLDER}/{self.segments:06d}-{self._writer}.jsonl", _segment(self._pending))
        self.segments += 1
        written, self._pending = self._pending, []
        return written


class JournalReader:
    """Reads a run's journal as it grows; segments never change, so each is read once.

    Args:
        storage: Storage of the run.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.segments: dict[str, tuple[list[Metric], str]] = {}
        """The entries of each segment, and what is wrong with it; empty if nothing is."""

    def read(self) -> list[Metric]:
        """All entries so far, by step and key, without damaged ones; see `damage`."""
        found: dict[tuple[str, int], Metric] = {}
        for name in self._storage.names(JOURNAL_FOLDER):
            if not SEGMENT.match(name):
                continue
            if name not in self.segments:
                self.segments[name] = _parsed(self._storage.read(f"{JOURNAL_FOLDER}/{name}"))
            for entry in self.segments[name][0]:
                found.setdefault((entry.key, entry.step), entry)
        return sorted(found.values(), key=lambda entry: (entry.step, entry.key))

    def after(self, count: int) -> list[Metric]:
        """The entries of all segments but the first `count`, by step and key; `count` says then where to go on."""
        self.read()
        found = {
            (entry.key, entry.step): entry
            for name in sorted(self.segments, reverse=True)
            if _number(name) >= count
            for entry in reversed(self.segments[name][0])
        }
        return sorted(found.values(), key=lambda entry: (entry.step, entry.key))

    @property
    def count(self) -> int:
        """Number of segments written, judging by the number of the last one present."""
        return max(map(_number, self.segments), default=-1) + 1

    def damage(self, segments: int = 0) -> list[str]:
        """Segments found to be damaged or missing so far, one sentence each.

        Args:
            segments: Number of segments known to have been written.
        """
        found = [f"{JOURNAL_FOLDER}/{name} is damaged: {what}" for name, (_, what) in self.segments.items() if what]
        lost = sorted({*range(max(self.count, segments))} - {*map(_number, self.segments)})
        return found + [
            f"{JOURNAL_FOLDER}/{number:06d}-*.jsonl is missing, and what was measured in it" for number in lost
        ]


def read_journal(storage: Storage) -> list[Metric]:
    """All entries of a run's journal, by step and key, without damaged ones."""
    return JournalReader(storage).read()


def newest_entries(storage: Storage) -> list[Metric]:
    """The entries of the newest segment that has any, which is enough to see how far a run is."""
    names = [name for name in storage.names(JOURNAL_FOLDER) if SEGMENT.match(name)]
    for name in reversed(names):
        if entries := _parsed(storage.read(f"{JOURNAL_FOLDER}/{name}"))[0]:
            return entries
    return []


def _number(name: str) -> int:
    return int(name.partition("-")[0])


def _segment(entries: Sequence[Metric]) -> bytes:
    """The text of a segment."""
    trees = [{**entry._asdict(), "line": line, "of": len(entries)} for line, entry in enumerate(entries, 1)]
    return "".join(json.dumps({**tree, CHECKSUM: _checksum(tree)}) + "\n" for tree in trees).encode()


def _checksum(tree: dict[str, Any]) -> str:
    return checksum(tree)[:16]


def _parsed(data: bytes) -> tuple[list[Metric], str]:
    """The entries of a segment, and what is wrong with it."""
    entries: list[Metric] = []
    lines: set[int] = set()
    broken, of = 0, 0
    for line in filter(None, data.split(b"\n")):
        try:
            tree = parse_object(line, where="line")
            if CHECKSUM in tree:
                if tree.pop(CHECKSUM) != _checksum(tree):
                    raise ValueError("it does not match its checksum")
                lines.add(tree.pop("line"))
                of = tree.pop("of")
            entries.append(_metric(tree))
        except (InputError, ValueError, TypeError, KeyError):
            broken += 1
    if of and len(lines) < of:
        return entries, f"{of - len(lines)} of its {of} entries are left out"
    if not entries:
        return entries, "nothing of it can be read"
    return entries, f"{broken} of its lines are left out" if broken else ""


def _metric(tree: dict[str, Any]) -> Metric:
    """An entry, if it is one.

    Raises:
        TypeError: If it is none.
    """
    metric = Metric(**tree)
    whole = all(type(number) is int and 0 <= number < 2**63 for number in (metric.step, metric.time_ms))
    if not whole or not metric.key or not isinstance(metric.key, str) or type(metric.value) not in (int, float):
        raise TypeError("not a metric")
    return metric
