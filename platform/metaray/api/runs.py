"""The runs and searches in a storage: which there are, and what each has to say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from metaray.config import NAME
from metaray.errors import InputError, unknown
from metaray.records.checkpoint_files import saved_steps, whole_steps
from metaray.records.failure import FAILURE
from metaray.records.journal import JournalReader, Metric
from metaray.records.judged import BY, JUDGED, Judged, Part
from metaray.records.overview import Overview, is_run, look
from metaray.records.result import Result
from metaray.records.run import LEARNER, Run
from metaray.records.storage import Storage
from metaray.tuning.overview import is_search, look_at_search, look_at_trials, winner_of


@dataclass(frozen=True)
class Detail:
    """Everything that the folder of a run or a search says.

    Attributes:
        seen: Summary of the run or search.
        folder: Folder or URI of the run or search.
        tags: Provenance of a run: code, versions, command; empty if it was not recorded.
        last: The last value of each metric in a run's journal.
        result: Result of a finished run, else None.
        judged: Scores of the single meta-test episodes; None if they were not kept.
        failure: Everything that is known of why a run failed; empty if it did not fail.
        learner: Folder or URI of a finished run's learner, else None.
        checkpoints: Steps of the complete checkpoints of a run.
        notes: Problems of the run or search, one sentence each.
        trials: Summaries of the trials of a search.
        winner: Name of a search's winning trial; None before there is one.
    """

    seen: Overview
    folder: str
    tags: Mapping[str, str] = field(default_factory=dict)
    last: Sequence[Metric] = ()
    result: Result | None = None
    judged: Judged | None = None
    failure: str = ""
    learner: str | None = None
    checkpoints: Sequence[int] = ()
    notes: Sequence[str] = ()
    trials: Sequence[Overview] = ()
    winner: str | None = None


def list_runs(storage: str) -> list[Overview]:
    """List the runs and searches of a storage, most recently changed first; trials are part of their search.

    Raises:
        InputError: If the storage cannot be read.
    """
    root = Storage(storage)
    found = [overview(root.child(name), name) for name in run_names(root)]
    return sorted(found, key=lambda seen: (-seen.changed_s, seen.name))


def show_run(storage: str, name: str) -> Detail:
    """Read everything about a run, a search, or a trial of a search (`SEARCH/trial-0003`).

    Raises:
        InputError: If nothing has that name (the message lists the names there are).
    """
    root = Storage(storage)
    search, slash, trial = name.partition("/")
    if not slash:
        require_run(root, name)
        place = root.child(name)
        return _search_detail(place, name) if is_search(place) else _run_detail(place, look(place, name))
    require_run(root, search)
    trials = {seen.name: seen for seen in look_at_trials(root.child(search), search)}
    if name not in trials:
        raise unknown(f"trial of {search}:", trial, [one.partition("/")[2] for one in trials])
    return _run_detail(root.child(search).child(trial), trials[name])


def judged_of(detail: Detail) -> Judged:
    """The scores of the single meta-test episodes of a run.

    Raises:
        InputError: If they were not kept.
    """
    if detail.judged is not None:
        return detail.judged
    name = detail.seen.name
    if detail.learner is None:
        raise InputError(f"{name} is no finished run, so it has no meta-test episodes")
    raise InputError(
        f"run {name} was made before it was kept how each episode went, or its {JUDGED} is damaged: `metaray evaluate "
        f"{detail.learner}` judges it anew"
    )


def parts_of(detail: Detail, by: str) -> list[Part]:
    """The meta-test episodes of a run, grouped by "support", "query" or "group".

    Raises:
        InputError: If `by` is another word, or the episodes do not differ in it, or were not kept.
    """
    if by not in BY:
        raise unknown("--by", by, BY)
    judged = judged_of(detail)
    found = judged.parts(next(known for known in BY if known == by))
    if not found:
        alike = (
            f"have {getattr(judged, by)[0]} {by} examples" if by != "group" else "are of no group that would come again"
        )
        raise InputError(f"--by {by}: all {len(judged)} meta-test episodes of {detail.seen.name} {alike}")
    return found


def overview(place: Storage, name: str) -> Overview:
    """A run or a search at a glance."""
    return look_at_search(place, name) if is_search(place) else look(place, name)


def run_names(root: Storage) -> list[str]:
    """Names of all runs and searches in a storage, in whatever state.

    Raises:
        InputError: If the storage cannot be read.
    """
    try:
        names = [name for name in root.folders() if NAME.fullmatch(name)]
        return [name for name in names if is_search(root.child(name)) or is_run(root.child(name))]
    except OSError as error:
        raise InputError(f"storage {root.shown!r} cannot be read: {error}") from None


def require_run(root: Storage, name: str) -> None:
    """Check that there is a run or a search with this name.

    Raises:
        InputError: If there is none (the message lists the names there are).
    """
    known = run_names(root)
    if name not in known:
        raise unknown(f"run in {root.shown}:", name, known)


def _run_detail(place: Storage, seen: Overview) -> Detail:
    """All that can be read of a run; what cannot be is a note."""
    notes: list[str] = []
    tags: Mapping[str, str] = {}
    result: Result | None = None
    judged: Judged | None = None
    try:
        run = Run(seen.name, place)
        tags = run.record.tags if run.is_begun else {}
        result = run.result if run.is_finished else None
        judged = run.judged if result is not None else None
    except InputError as error:
        notes.append(str(error))
    reader = JournalReader(place)
    last = {entry.key: entry for entry in reader.read()}
    notes += reader.damage()
    checkpoints = whole_steps(place)
    notes += [f"the checkpoint of step {step} is damaged" for step in saved_steps(place) if step not in checkpoints]
    return Detail(
        seen=seen,
        folder=place.root,
        tags=tags,
        last=list(last.values()),
        result=result,
        judged=judged,
        failure=place.read(FAILURE).decode("utf-8", "replace") if place.exists(FAILURE) else "",
        learner=place.child(LEARNER).root if result is not None and place.names(LEARNER) else None,
        checkpoints=checkpoints,
        notes=notes,
    )


def _search_detail(place: Storage, name: str) -> Detail:
    notes: list[str] = []
    winner: str | None = None
    try:
        winner = winner_of(place)
    except InputError as error:
        notes.append(str(error))
    return Detail(
        seen=look_at_search(place, name),
        folder=place.root,
        trials=look_at_trials(place, name),
        winner=winner,
        notes=notes,
    )
