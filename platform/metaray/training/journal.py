"""The metrics journal: what was measured at which step, kept with the checkpoints.

Metrics gather in memory and are written as one segment at each checkpoint, before it. So a run that resumes at step s
has exactly the metrics of the steps before s, on any storage.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

from metaray.training.storage import Storage

FOLDER = "metrics"


class Metric(NamedTuple):
    """One metric: a dotted or slashed key, its value, the outer step, milliseconds since the epoch."""

    key: str
    value: float
    step: int
    time_ms: int


class Journal:
    """Appends segments `<first step>-<end step>.jsonl` to a run's storage.

    Args:
        storage: of the run.
        start: the step at which this process starts; segments beyond it belong to steps that will be done again.
    """

    def __init__(self, storage: Storage, start: int) -> None:
        self._storage, self._start, self._pending = storage, start, list[Metric]()

    def append(self, entries: Sequence[Metric]) -> None:
        """Remember entries until the next commit."""
        self._pending.extend(entries)

    def commit(self, step: int) -> None:
        """Write what was measured since the last commit, as the segment that ends at `step`."""
        if self._pending:
            text = "".join(json.dumps(entry._asdict()) + "\n" for entry in self._pending)
            self._storage.write(f"{FOLDER}/{self._start:09d}-{step:09d}.jsonl", text.encode())
        self._start, self._pending = step, []


def read_journal(storage: Storage, end: int | None = None) -> list[Metric]:
    """All entries of a run in order, of segments that end at or before step `end`."""
    found: dict[tuple[str, int], Metric] = {}
    for name in storage.names(FOLDER):
        last = int(name.removesuffix(".jsonl").partition("-")[2])
        if end is None or last <= end:
            for line in storage.read(f"{FOLDER}/{name}").decode().splitlines():
                entry = Metric(**json.loads(line))
                found[entry.key, entry.step] = entry
    return sorted(found.values(), key=lambda entry: (entry.step, entry.key))
