"""What is left to try of a search: no two trials train the same experiment, which would give the same result."""

import json
from collections.abc import Iterator
from itertools import chain, count, islice
from typing import Any

from metaray.errors import InputError
from metaray.tuning import candidates as points
from metaray.tuning import tpe as parzen
from metaray.tuning.ledger import Ledger
from metaray.tuning.search import Search

ATTEMPTS = 20
"""Times that a searcher is asked again, before any other point of the space will do."""
MOST_LOOKS = 10_000
"""Largest number of candidates considered for one trial, besides those tried before."""


class Untried:
    """Settings for the next trial that differ from those of all earlier trials.

    They are a function of the search and of the earlier trials, so a resumed search proposes the same settings.

    Args:
        ledger: Ledger of the search.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._search = ledger, ledger.search
        self._read = 0
        self._tried: set[str] = set()
        self._grid: list[dict[str, Any]] | None = None
        self._exhausted = False

    def settings(self, number: int) -> dict[str, Any] | None:
        """The settings for trial `number`; None if no untried settings are left."""
        if self._exhausted:
            return None
        numbers = self._ledger.numbers()
        for known in numbers[self._read :]:
            self._tried |= self._marks(self._ledger.entry(known).settings)
        self._read = len(numbers)
        for settings in islice(self._candidates(number), MOST_LOOKS + len(self._tried)):
            if _text(settings) not in self._tried and self._tried.isdisjoint(self._marks(settings)):
                return settings
        self._exhausted = True
        return None

    def _candidates(self, number: int) -> Iterator[dict[str, Any]]:
        """What trial `number` may have, the best first."""
        search = self._search
        if search.searcher == "grid":
            self._grid = self._grid or search.grid()
            return islice(self._grid, number, None)  # those before it are tried, or the same as others
        if search.searcher == "tpe":
            trials = self._ledger.trials()
            asked = (parzen.propose(search, number, trials, attempt) for attempt in range(ATTEMPTS))
        else:
            asked = (search.initial(number, attempt) for attempt in range(ATTEMPTS))
        if points.count(search.space) is None:
            return chain(asked, (search.initial(number, attempt) for attempt in count(ATTEMPTS)))
        return chain(asked, map(search.as_begun, points.shuffled(search.space, search.seed, number)))

    def _marks(self, settings: dict[str, Any]) -> set[str]:
        """What settings are known by: themselves and, where they are valid, the experiment that they make."""
        try:
            made = self._search.experiment_of(settings)
        except InputError:
            return {_text(settings)}
        return {_text(settings), made.to_json()}


def why_no_more(search: Search, proposed: int) -> str | None:
    """The reason why a search ended with fewer trials than were asked for; None if it did not.

    Args:
        search: The finished search.
        proposed: Number of trials that were proposed.
    """
    wanted = search.population if search.searcher == "grid" else search.trials
    assert wanted is not None
    if search.searcher == "pbt":
        proposed = min(proposed, search.population)
    if proposed >= wanted:
        return None
    total = len(search.grid()) if search.searcher == "grid" else points.count(search.space)
    if total is None:
        return f"{proposed} of {wanted} trials: more draws from the space only gave what was tried"
    same = f"; they make {proposed} different experiments" if proposed < total else ""
    return f"{proposed} of {wanted} trials: all {total} combinations are tried{same}"


def _text(settings: dict[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
