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
"""Names of files and folders by which the folder of a run is known, whatever it lacks."""


class Score(NamedTuple):
    """How good a run is.

    Attributes:
        split: "meta-test" of a finished run, else "meta-val": the best so far.
        quality: What it is, one of `SCORES`; empty where the journal does not say.
        mean: Mean over episodes.
        half_width: Half the width of the 95% interval; None where it is not recorded.
    """

    split: str
    quality: str
    mean: float
    half_width: float | None = None


@dataclass(frozen=True)
class Overview:
    """A run or a search at a glance.

    Attributes:
        name: Name of its folder.
        kind: "run" or "search".
        state: A run that is "unfinished" goes on from step `done`; one "not begun" was refused or stopped before
            its first record; "stopped early" are trials; what is "damaged" cannot be read, and `why` says the reason.
        experiment: Its name; empty where nobody can tell.
        done: Outer steps; of a search trials that ended.
        planned: How many there are to be; of a search None where its space says.
        score: None before the first one.
        changed_s: When its newest file was written, seconds since the epoch; 0 where it has none.
        size_bytes: Size of all its files, in bytes.
        holder: Holder of its lock, in words; empty where nobody has it.
        why: It failed or is damaged, one line; else empty.
        tracking_run: Id of its MLflow run.
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
    """A run at a glance. What is damaged is said, not raised.

    Args:
        storage: Storage of the run.
        name: Name to call it by.
        mine: Whether this process has locked it, which is not said then.
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
    """Why a run failed, and when; None if it did not."""
    if not storage.exists(FAILURE):
        return None
    return storage.read(FAILURE).decode("utf-8", "replace").partition("\n")[0]


def named(experiment: Mapping[str, Any]) -> str:
    """The name in a recorded experiment."""
    return str(experiment.get("name", ""))


def one_line(error: Exception) -> str:
    """A message without its further lines."""
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
