"""What somebody else than the run's own folder kept of a run: a tracker, for a learner that came from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from metaray.records.journal import Metric
from metaray.records.result import Result


@dataclass(frozen=True)
class History:
    """What is known about a run without its folder.

    Attributes:
        place: Place where this was recorded, in words; empty if nothing was recorded.
        run_id: Id of the run at that place; None without one.
        tags: Provenance of the run: code, versions, command.
        metrics: Recorded metrics.
        result: Result of the run; None if it was not recorded.
        notes: Problems while reading, one sentence each.
    """

    place: str = ""
    run_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Sequence[Metric] = ()
    result: Result | None = None
    notes: Sequence[str] = ()
