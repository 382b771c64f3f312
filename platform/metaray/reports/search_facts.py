"""What the report of a search tells; see `metaray.reports.facts`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from metaray.records.overview import Overview
from metaray.records.result import Result
from metaray.tuning.search import Search
from metaray.tuning.trial import Trial


@dataclass(frozen=True)
class SearchFacts:
    """A search.

    Attributes:
        name: Name of the search, as the user gave it.
        seen: The search at a glance.
        search: Its description; None where it cannot be read.
        trials: All of them.
        winner: The best so far; None before there is one.
        result: Result of the winner's run, once it was judged on meta-test.
        origin: Where it comes from: code, versions, command.
        again: What makes it again; empty where nobody knows.
        report: What makes this report again.
        notes: What is wrong with it, a sentence each.
    """

    name: str
    seen: Overview
    search: Search | None
    trials: Sequence[Trial] = ()
    winner: Trial | None = None
    result: Result | None = None
    origin: Mapping[str, str] = field(default_factory=dict)
    again: str = ""
    report: str = ""
    notes: Sequence[str] = ()
