"""What the folder of a search says at a glance, for lists of many: without data, network or anybody's code."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from metaray.errors import InputError
from metaray.json_text import parse_json
from metaray.manifest import unsealed_json
from metaray.records.overview import Overview, Score, State, first_look, look, named, one_line
from metaray.records.run import RECORD_FILE
from metaray.records.storage import Storage
from metaray.tasks.score import score_named
from metaray.tuning.ledger_files import SEARCH, TRIAL, read_outcome
from metaray.tuning.trial import ENDED

WINNER, TRIALS = "winner.json", "trials.json"


def is_search(storage: Storage) -> bool:
    """Whether a folder holds a search."""
    return storage.exists(SEARCH)


def storage_of_all(storage: Storage) -> Storage:
    """The storage of all runs that a run's storage belongs to: of the trials of a search that of the search itself."""
    return storage.parent if is_search(storage) else storage


def look_at_search(storage: Storage, name: str) -> Overview:
    """A search at a glance. What is damaged is said, not raised.

    Args:
        storage: Storage of the search.
        name: Name to call the search by.
    """
    seen = first_look(storage)
    try:
        where = f"{storage.shown}/{SEARCH}"
        search = unsealed_json(storage.read(SEARCH), where=where).get("search")
        if not isinstance(search, Mapping) or not isinstance(search.get("experiment"), Mapping):
            raise InputError(f"{where}: it describes no search")
        trials = trials_of(storage)
        ended = sum((read_outcome(storage.child(trial)) or ("waiting",))[0] in ENDED for trial in trials)
        planned = search.get("trials")
        seen |= {"experiment": named(search["experiment"]), "done": ended, "planned": planned}
        over = storage.exists(WINNER) and ended == len(trials)
        state: State = "running" if seen["holder"] else "finished" if over else "unfinished"
        return Overview(name, "search", state, score=_score(storage, trials), **seen)
    except (InputError, OSError) as error:
        return Overview(name, "search", "damaged", why=one_line(error), **seen)


def trials_of(storage: Storage) -> list[str]:
    """Names of a search's trials, in their order."""
    return [name for name in storage.names() if name.startswith("trial-") and storage.exists(f"{name}/{TRIAL}")]


def look_at_trials(storage: Storage, name: str) -> list[Overview]:
    """Summaries of the trials of a search; an outcome recorded by the search decides a trial's state."""
    return [_trial(storage.child(trial), f"{name}/{trial}") for trial in trials_of(storage)]


def winner_of(storage: Storage) -> str | None:
    """Name of the winning trial, recorded at the end of the search; None before that.

    Raises:
        InputError: If the file is damaged.
    """
    if not storage.exists(TRIALS):
        return None
    where = f"{storage.shown}/{TRIALS}"
    rows = parse_json(storage.read(TRIALS), where=where)
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise InputError(f"{where}: it holds no trials; `metaray tune --run` with the search's name writes it again")
    return next((str(row.get("name")) for row in rows if row.get("winner") is True), None)


def _trial(run: Storage, name: str) -> Overview:
    seen = look(run, name)
    try:
        outcome = read_outcome(run)
    except (InputError, OSError) as error:
        return replace(seen, state="damaged", why=one_line(error))
    if seen.state == "damaged" and not run.exists(RECORD_FILE):
        seen = replace(seen, state="not begun", why="")  # a copy of another trial has a checkpoint before its record
    if outcome is None or outcome[0] == "waiting" or outcome[0] == "running" or seen.state in ("running", "damaged"):
        return seen
    return replace(seen, state=outcome[0], why=outcome[1])


def _score(storage: Storage, trials: Sequence[str]) -> Score | None:
    """Score of the winner; before there is one, the best on meta-val so far."""
    winner = winner_of(storage)
    if winner is not None and winner in trials:
        return look(storage.child(winner), winner).score
    best: Score | None = None
    for trial in trials:
        score = look(storage.child(trial), trial).score
        if score is None or not score.quality:
            continue
        if best is None or score_named(score.quality).surpasses(score.mean, best.mean):
            best = score
    return None if best is None else best._replace(split="meta-val")
