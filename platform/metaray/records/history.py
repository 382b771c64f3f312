"""What somebody else than the run's own folder kept of a run: a tracker, for a learner that came from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from metaray.records.journal import Metric
from metaray.records.result import Result


@dataclass(frozen=True)
class History:
    """A run as far as it is known without its folder.

    Attributes:
        place: Where that was kept, in words; empty where nobody kept anything.
        run_id: Id of the run there; None without one.
        tags: Where the run comes from: code, versions, command.
        metrics: What was measured.
        result: What it found out; None where that was not kept.
        notes: What could not be read, a sentence each.
    """

    place: str = ""
    run_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Sequence[Metric] = ()
    result: Result | None = None
    notes: Sequence[str] = ()
