"""What a run's folder says at a glance, for lists of many: without data, network or anybody's code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from metaray.errors import InputError
from metaray.records.checkpoint_files import CHECKPOINTS_FOLDER, Progress, newest_progress
from metaray.records.failure import FAILURE
from metaray.records.journal import JOURNAL_FOLDER, Metric, newest_entries, read_journal
from metaray.records.judged import JUDGED
from metaray.records.result import RESULT, Result
from metaray.records.run import LOCK, RECORD_FILE, Run
from metaray.records.run_log import LOG
from metaray.records.storage import Storage
from metaray.tasks.score import SCORES

State = Literal["finished", "stopped early", "unfinished", "failed", "running", "not begun", "damaged"]
LEFT_BY_A_RUN = (RECORD_FILE, RESULT, JUDGED, LOG, LOCK, FAILURE, CHECKPOINTS_FOLDER, JOURNAL_FOLDER)
"""Names of files and folders that identify the folder of a run, even if others are missing."""


class Score(NamedTuple):
    """The score of a run.

    Attributes:
        split: "meta-test" for a finished run, otherwise "meta-val", with the best score so far.
        quality: Name of the score, one of `SCORES`; empty if the journal does not say.
        mean: Mean over episodes.
        half_width: Half the width of the 95% interval; None if it was not recorded.
    """

    split: str
    quality: str
    mean: float
    half_width: float | None = None


@dataclass(frozen=True)
class Overview:
    """Summary of a run or a search.

    Attributes:
        name: Name of the folder.
        kind: Kind: "run" or "search".
        state: State. A run that is "unfinished" can be resumed from step `done`; one that is "not begun" was refused or
            stopped before its first record; "stopped early" occurs for trials; a "damaged" one cannot be read, for the
            reason in `why`.
        experiment: Name of the experiment; empty if unknown.
        done: Number of outer steps done; of a search, number of trials that ended.
        planned: Number of outer steps or trials in all; None for a search whose space determines it.
        score: Score of the run; None before the first evaluation.
        changed_s: Time of the newest file, in seconds since the epoch; 0 without files.
        size_bytes: Total size of the files in bytes.
        holder: Description of the process that holds the lock; empty if none does.
        why: Reason why the run failed or is damaged, in one line; otherwise empty.
        tracking_run: Id of the MLflow run.
    """

    name: str
    kind: Literal["run", "search"]
    state: State
    experiment: str = ""
    done: int = 0
    planned: int | None = None
    score: Score | None = None
    changed_s: float = 0.0
    size_bytes: int = 0
    holder: str = ""
    why: str = ""
    tracking_run: str | None = None


def is_run(storage: Storage) -> bool:
    """Whether a folder holds a run, or what is left of one."""
    return not set(LEFT_BY_A_RUN).isdisjoint(storage.names())


def look(storage: Storage, name: str, *, mine: bool = False) -> Overview:
    """Summary of a run; damage is reported in it, not raised.

    Args:
        storage: Storage of the run.
        name: Name of the run.
        mine: Whether this process holds the run's lock, which is not reported then.
    """
    seen = first_look(storage, mine=mine)
    holder = seen["holder"]
    try:
        if not storage.exists(RECORD_FILE):
            return _without_record(storage, name, seen)
        run = Run(name, storage)
        record = run.record
        seen |= {"experiment": named(record.experiment), "tracking_run": record.tracking_run}
        seen["planned"] = planned = _whole_number(record.experiment, "num_steps")
        if run.is_finished:
            result = run.result
            state: State = "running" if holder else "finished"
            return Overview(name, "run", state, done=result.num_steps, score=_tested(result), **seen)
        progress = newest_progress(storage)
        entries = newest_entries(storage)
        # Whoever goes on begins at the newest checkpoint; who runs is past it.
        done = max([progress.step, *(entry.step for entry in entries)]) if holder else progress.step
        seen |= {"done": min(done, planned), "score": _validated(storage, progress, entries)}
        why = first_line_of_failure(storage)
        state = "running" if holder else "unfinished" if why is None else "failed"
        return Overview(name, "run", state, why="" if holder else why or "", **seen)
    except (InputError, OSError) as error:
        return Overview(name, "run", "damaged", why=one_line(error), **seen)


def first_look(storage: Storage, *, mine: bool = False) -> dict[str, Any]:
    """Fields of an `Overview` that need no file to be read."""
    files = storage.files()
    # A lock tells nothing of when: whoever cleans up writes it, too.
    changed_s = max((file.changed_s for file in files if file.name.rpartition("/")[2] != LOCK), default=0.0)
    holder = "" if mine else storage.holder(LOCK) or ""
    return {"changed_s": changed_s, "size_bytes": sum(file.size_bytes for file in files), "holder": holder}


def first_line_of_failure(storage: Storage) -> str | None:
    """Why a run failed, and when, in one line; None if it did not fail."""
    if not storage.exists(FAILURE):
        return None
    return storage.read(FAILURE).decode("utf-8", "replace").partition("\n")[0]


def named(experiment: Mapping[str, Any]) -> str:
    """The name in a recorded experiment."""
    return str(experiment.get("name", ""))


def one_line(error: Exception) -> str:
    """The first line of an error message."""
    return str(error).partition("\n")[0]


def _without_record(storage: Storage, name: str, seen: dict[str, Any]) -> Overview:
    """What ended before anything was recorded, or lost its record."""
    if seen["holder"]:
        return Overview(name, "run", "running", **seen)
    lost = sorted({CHECKPOINTS_FOLDER, JOURNAL_FOLDER, RESULT}.intersection(storage.names()))
    if not lost:
        return Overview(name, "run", "not begun", **seen)
    return Overview(name, "run", "damaged", why=f"{RECORD_FILE} is missing, but there is {', '.join(lost)}", **seen)


def _whole_number(tree: Mapping[str, Any], key: str) -> int:
    value = tree.get(key)
    if type(value) is not int:
        raise InputError(f"{RECORD_FILE}: experiment.{key} is no whole number (got {value!r})")
    return value


def _tested(result: Result) -> Score:
    return Score("meta-test", result.quality, result.meta_test.mean, result.meta_test.half_width)


def _validated(storage: Storage, progress: Progress, entries: Sequence[Metric]) -> Score | None:
    if progress.best_score is None:
        return None
    return Score("meta-val", _quality(entries) or _quality(read_journal(storage)) or "", progress.best_score)


def _quality(entries: Sequence[Metric]) -> str | None:
    """What the scores are, which the keys of metrics tell."""
    keys = {entry.key for entry in entries}
    return next((quality for quality in SCORES if {f"val/{quality}", f"train/{quality}"} & keys), None)
