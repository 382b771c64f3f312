"""The files of a search's ledger: what they are called, what they say, and how they are read."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field

from metaray.config import Config
from metaray.json_text import parse_json
from metaray.manifest import unsealed_json
from metaray.records.checked_json import read_record, write_record
from metaray.records.journal import Metric, read_journal
from metaray.records.result import HALF_WIDTH
from metaray.records.storage import Storage
from metaray.tuning.population import Copy
from metaray.tuning.trial import Objective, TrialScore, TrialStatus

if TYPE_CHECKING:
    # Whoever lists searches needs neither, nor torch, which both import.
    from metaray.experiment.experiment import Experiment
    from metaray.tuning.search import Search

SEARCH, TRIAL, OUTCOME = "search.json", "trial.json", "outcome.json"
RESTORE = "restore it from a copy, or search under another --run name"


class Origin(NamedTuple):
    """Start of a trial that copies another: the state of trial `trial` after `step` outer steps."""

    trial: int
    step: int


class Entry(NamedTuple):
    """The ledger's record of a proposed trial, without its progress.

    Attributes:
        number: Number of the trial, from 0.
        settings: Values of the searched fields, by dotted key.
        experiment: The experiment that the trial trains.
        fingerprint: Fingerprint of the experiment's source.
        origin: State of another trial that this one starts with; None if it starts at step 0.
    """

    number: int
    settings: dict[str, Any]
    experiment: "Experiment"
    fingerprint: str
    origin: Origin | None = None


@dataclass(frozen=True)
class Header:
    """The ledger's record of the search.

    Attributes:
        search: Description of the search.
        id: Unique id of the search, by which its MLflow runs are found.
        fingerprint: Fingerprint of the source.
        tags: Provenance of the search: code, versions, command.
    """

    search: "Search"
    id: str
    fingerprint: str
    tags: Mapping[str, str]


class _Search(Config):
    """`search.json`; see `Header`."""

    search: dict[str, Any]
    id: str
    fingerprint: str
    tags: dict[str, str]


class _Trial(Config):
    """`trial.json`; see `Entry`."""

    number: int
    settings: dict[str, Any]
    experiment: dict[str, Any]
    fingerprint: str
    origin: Origin | None


class _Outcome(Config):
    """`outcome.json`: how a trial ended, and why."""

    status: TrialStatus
    why: str


class _Made(Config):
    """A new trial, and what it is a copy of."""

    number: int
    copy_: Copy = Field(alias="copy")


class _Generation(Config):
    """`generation-NNN.json`: what was decided after a generation."""

    copies: tuple[_Made, ...]


def write_header(storage: Storage, header: Header) -> None:
    """Write the record of the search to `search.json`."""
    tree = {"search": header.search.model_dump(mode="json"), "id": header.id, "fingerprint": header.fingerprint}
    write_record(storage, SEARCH, tree | {"tags": dict(header.tags)})


def read_header(storage: Storage, trust: Sequence[str] = ()) -> Header:
    """Read `search.json`; `trust` lists the packages besides metaray whose code it may name.

    Raises:
        InputError: If the file is damaged.
    """
    from metaray.tuning.search import Search

    record = read_record(storage, SEARCH, _Search, remedy=RESTORE)
    context = {"trust": tuple(trust)}
    search = Search.parse(record.search, where=f"the search in {storage.shown}", context=context)
    return Header(search, record.id, record.fingerprint, record.tags)


def write_entry(run: Storage, entry: Entry) -> None:
    """Write `trial.json` into a trial's folder."""
    experiment, origin = entry.experiment.model_dump(mode="json"), entry.origin
    tree = entry._asdict() | {"experiment": experiment, "origin": origin._asdict() if origin else None}
    write_record(run, TRIAL, tree)


def read_entry(run: Storage, number: int, trust: Sequence[str] = ()) -> Entry:
    """Read `trial.json` in a trial's folder; `trust` lists the packages whose code it may name.

    Raises:
        InputError: If the file is damaged.
    """
    from metaray.experiment.experiment import Experiment

    record = read_record(run, TRIAL, _Trial, remedy=RESTORE)
    context = {"trust": tuple(trust)}
    experiment = Experiment.parse(record.experiment, where=f"the experiment of {run.shown}", context=context)
    return Entry(number, record.settings, experiment, record.fingerprint, record.origin)


def read_outcome(run: Storage) -> tuple[TrialStatus, str] | None:
    """How a trial ended, and why; None if it has not ended.

    Raises:
        InputError: If the file is damaged.
    """
    if not run.exists(OUTCOME):
        return None
    record = read_record(run, OUTCOME, _Outcome, remedy="delete it, and the trial goes on from its newest checkpoint")
    return record.status, record.why


def end_trial(run: Storage, status: TrialStatus, why: str = "") -> None:
    """Write down how a trial ended, unless that is known."""
    if read_outcome(run) is None:
        write_record(run, OUTCOME, {"status": status, "why": why})


def write_copies(storage: Storage, name: str, copies: Iterable[tuple[int, Copy]]) -> None:
    """Write what was decided after a generation."""
    write_record(storage, name, {"copies": [{"number": number, "copy": copy._asdict()} for number, copy in copies]})


def read_copies(storage: Storage, name: str) -> list[tuple[int, Copy]]:
    """Read the copies decided after a generation, with the number of each new trial.

    Raises:
        InputError: If the file is damaged.
    """
    where = f"{storage.shown}/{name}"
    text = storage.read(name)
    found = parse_json(text, where=where)
    # Older files hold the list alone, without a checksum.
    tree = {"copies": found} if isinstance(found, list) else unsealed_json(text, where=where)
    return [(made.number, made.copy_) for made in _Generation.parse(tree, where=where).copies]


def curve_of(run: Storage, experiment: "Experiment", objective: Objective) -> tuple[TrialScore, ...]:
    """The evaluations that a run's journal holds."""
    return curve_in(read_journal(run), experiment, objective)


def curve_in(metrics: Iterable[Metric], experiment: "Experiment", objective: Objective) -> tuple[TrialScore, ...]:
    """The evaluations among a run's metrics."""
    key = f"val/{objective.name}"
    found: dict[str, dict[int, float]] = {key: {}, key + HALF_WIDTH: {}}
    for metric in metrics:
        if metric.key in found:
            found[metric.key][metric.step] = metric.value
    widths, size = found[key + HALF_WIDTH], experiment.meta_batch_size
    return tuple(
        TrialScore(step, step * size, value, widths.get(step, math.nan)) for step, value in sorted(found[key].items())
    )
