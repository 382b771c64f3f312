"""Room in a storage of runs: what nobody needs goes, if so asked, and whole runs that are named."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from metaray.api.runs import overview, require_run, run_names
from metaray.errors import InputError, RunFailed
from metaray.records.leftovers import (
    Leftover,
    broken_off_checkpoints,
    broken_off_files,
    deletions_broken_off,
    leftovers,
    remove,
    why_not_now,
)
from metaray.records.overview import look
from metaray.records.run import held
from metaray.records.storage import Storage
from metaray.tuning.overview import is_search, trials_of


@dataclass(frozen=True)
class Cleaning:
    """The leftovers of runs that were deleted, or that would be deleted.

    Attributes:
        found: The leftovers of each run, by the run's name.
        passed_over: The reason why a run was left alone, by the run's name.
        done: Whether the leftovers were deleted.
    """

    found: Sequence[tuple[str, Leftover]]
    passed_over: Mapping[str, str]
    done: bool

    @property
    def size_bytes(self) -> int:
        """Size of all leftovers together, in bytes."""
        return sum(leftover.size_bytes for _, leftover in self.found)


def clean_leftovers(storage: str, *, delete: bool) -> Cleaning:
    """Find the leftovers of all runs (see `metaray.records.leftovers`), and delete them if `delete` is true.

    Runs that are in use, and files that are damaged, are left alone.

    Raises:
        InputError: If the storage cannot be read.
        RunFailed: If something cannot be deleted.
    """
    root = _root(storage)
    found: list[tuple[str, Leftover]] = []
    passed_over: dict[str, str] = {}
    for name in run_names(root):
        place = root.child(name)
        seen = overview(place, name)
        why = f"it is damaged: {seen.why}" if seen.state == "damaged" else why_not_now(place, seen)
        if why is None:
            plan = partial(_of_a_search, place) if seen.kind == "search" else partial(_of_a_run, place, name)
            try:
                found += [(name, one) for one in _carried_out(place, plan, delete=delete)]
            except InputError as error:  # somebody took it meanwhile
                why = str(error)
        if why is not None:
            passed_over[name] = why
    deleted_in_part = deletions_broken_off(root)
    for one in deleted_in_part if delete else ():
        _remove(root, one)
    found += [(one.path, one) for one in deleted_in_part]
    return Cleaning(found, passed_over, delete)


def remove_runs(storage: str, names: Sequence[str], *, delete: bool) -> Cleaning:
    """List what whole runs and searches hold, and delete them if `delete` is true; MLflow runs stay.

    Raises:
        InputError: If no run has one of the names, or one is in use; nothing is deleted then.
        RunFailed: If something cannot be deleted.
    """
    root = _root(storage)
    planned: list[tuple[str, Leftover]] = []
    for name in dict.fromkeys(names):
        require_run(root, name)
        seen = overview(root.child(name), name)
        why = why_not_now(root.child(name), seen)
        if why is not None:
            raise InputError(f"{seen.kind} {name!r} cannot be removed now: {why}")
        planned.append((name, Leftover("", f"the whole {seen.kind}", seen.size_bytes)))
    for name, whole in planned:
        _carried_out(root.child(name), partial(list, [whole]), delete=delete)
    return Cleaning(planned, {}, delete)


def _root(storage: str) -> Storage:
    """The storage of all runs.

    Raises:
        InputError: If it is the folder of a search, whose trials may begin with each other's checkpoints.
    """
    root = Storage(storage)
    if is_search(root):
        raise InputError(f"{root.shown} is a search, whose trials stay together: clean the folder that it lies in")
    return root


def _carried_out(place: Storage, plan: Callable[[], list[Leftover]], *, delete: bool) -> list[Leftover]:
    """What is planned, and deleted if so asked; then it is planned anew, once nobody else can write there.

    Raises:
        InputError: If somebody else has it.
    """
    if not delete:
        return plan()
    with held(place):
        found = plan()
        for one in found:
            _remove(place, one)
    return found


def _remove(place: Storage, leftover: Leftover) -> None:
    try:
        remove(place, leftover)
    except OSError as error:
        what = f"{place.shown}/{leftover.path}".rstrip("/")
        raise RunFailed(f"{what} could not be deleted: {error}") from error


def _of_a_run(place: Storage, name: str) -> list[Leftover]:
    return leftovers(place, look(place, name, mine=True))


def _of_a_search(place: Storage) -> list[Leftover]:
    """What broken-off writes left of it and its trials; whole checkpoints stay, since other trials may begin there."""
    found, left_alone = list[Leftover](), list[str]()
    for trial in trials_of(place):
        if look(place.child(trial), trial).holder:
            left_alone.append(f"{trial}/")
        else:
            here = broken_off_checkpoints(place.child(trial))
            found += [one._replace(path=f"{trial}/{one.path}") for one in here]
    files = broken_off_files(place, outside=[f"{one.path}/" for one in found] + left_alone)
    return found + files
