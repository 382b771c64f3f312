"""The facts of a search, from its ledger."""

from collections.abc import Sequence

from metaray.errors import InputError
from metaray.records.run import Run
from metaray.records.storage import Storage
from metaray.reports.search_facts import SearchFacts
from metaray.tuning.ledger import Header, Ledger, read_header
from metaray.tuning.overview import look_at_search
from metaray.tuning.trial import winner_of


def facts_of_search(storage: Storage, name: str, *, report: str, again: str, trust: Sequence[str] = ()) -> SearchFacts:
    """All that there is to tell of a search, also of one that goes on or was broken off.

    Args:
        storage: Storage of the search alone.
        name: Name of the search, as the user gave it.
        report: The command that makes the report again.
        again: The command that goes on with it.
        trust: Packages besides metaray whose code its trials may name.
    """
    seen = look_at_search(storage, name)
    header: Header | None = None
    notes: list[str] = []
    try:
        header = read_header(storage, trust)
        ledger = Ledger(storage, header)
        trials = ledger.trials()
        notes += ledger.damage()
    except InputError as error:
        tags = header.tags if header else {}
        return SearchFacts(
            name, seen, header.search if header else None, origin=tags, again=again, report=report, notes=[str(error)]
        )
    winner = winner_of(trials, header.search.optimises)
    result = None
    if winner is not None:
        run = Run(winner.name, ledger.run_of(winner.number))
        try:
            result = run.result if run.is_finished else None
        except InputError as error:
            notes.append(str(error))
    return SearchFacts(
        name=name,
        seen=seen,
        search=header.search,
        trials=trials,
        winner=winner,
        result=result,
        origin=header.tags,
        again=header.tags.get("command") or again,
        report=report,
        notes=notes,
    )
