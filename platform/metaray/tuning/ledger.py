"""The ledger of a search: what was proposed and how it ended, on disk before anyone acts on it.

The folder of a search is a storage of runs: each trial is a run of its own (`trial-0003`), with checkpoints, journal
and, of the winner, learner and result. Beside them lie `search.json`, and in each run `trial.json` and `outcome.json`.
"""

import json
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from metaray.errors import InputError
from metaray.training.checkpoint import copy_checkpoint, newest_progress
from metaray.training.experiment import Experiment
from metaray.training.identity import RECORD as RUN_RECORD
from metaray.training.journal import Journal, read_journal
from metaray.training.overrides import differences
from metaray.training.session import HALF_WIDTH
from metaray.training.storage import Storage
from metaray.tuning.population import Copy
from metaray.tuning.search import Search
from metaray.tuning.trial import ENDED, Judged, Objective, Status, Trial, trial_name

SEARCH, TRIAL, OUTCOME = "search.json", "trial.json", "outcome.json"


class Origin(NamedTuple):
    """Where a trial that copies another begins: with the state of trial `trial` after `step` outer steps."""

    trial: int
    step: int


class Entry(NamedTuple):
    """What the ledger knows of a trial besides how it goes.

    Attributes:
        number: of the trial.
        settings: of the searched fields.
        experiment: that it trains.
        fingerprint: of its source.
        origin: None if it begins at step 0.
    """

    number: int
    settings: dict[str, Any]
    experiment: Experiment
    fingerprint: str
    origin: Origin | None = None


@dataclass(frozen=True)
class Header:
    """What the ledger knows of the search.

    Attributes:
        search: its description.
        id: unique to it, by which its MLflow runs are found.
        fingerprint: of the source.
        tags: where it comes from: code, versions, command.
    """

    search: Search
    id: str
    fingerprint: str
    tags: Mapping[str, str]


class Ledger:
    """Reads and writes the folder of a search. One process writes; a trial's own process adds its outcome if it fails.

    Args:
        storage: of the search.
        header: of the search.
    """

    def __init__(self, storage: Storage, header: Header) -> None:
        self.storage, self.header = storage, header
        self.search = header.search
        self._ended: dict[int, Trial] = {}
        self._entries: dict[int, Entry] = {}

    def propose(self, number: int, settings: Mapping[str, Any], origin: Origin | None = None) -> Entry:
        """Write down a new trial, and copy what it begins with.

        Raises:
            InputError: if its values do not make a valid experiment; then it is written down as failed.
        """
        base = self.search.experiment
        entry = Entry(number, dict(settings), base, self.header.fingerprint, origin)
        try:
            experiment = self.search.experiment_of(settings)
        except InputError as error:
            # First, so that nobody takes it for one that is to be trained.
            self.end(number, "failed", str(error))
            self._write_entry(entry)
            raise
        entry = entry._replace(experiment=experiment)
        if experiment.source != base.source:
            entry = entry._replace(fingerprint=experiment.source.fingerprint)
        if origin is not None:
            donor, mine = self.run_of(origin.trial), self.run_of(number)
            journal = Journal(mine)
            journal.append([metric for metric in read_journal(donor) if metric.step <= origin.step])
            journal.flush(now=True)
            copy_checkpoint(donor, mine, origin.step)
        self._write_entry(entry)
        return entry

    def end(self, number: int, status: Status, why: str = "") -> None:
        """Write down how a trial ended, unless that is known."""
        end_trial(self.run_of(number), status, why)

    def numbers(self) -> list[int]:
        """Of all trials that were proposed, ascending."""
        names = [name for name in self.storage.names() if name.startswith("trial-")]
        found = sorted(int(name.removeprefix("trial-")) for name in names if name.removeprefix("trial-").isdigit())
        return [number for number in found if number in self._entries or self._is_there(number)]

    def entry(self, number: int) -> Entry:
        """What was proposed."""
        if number not in self._entries:
            self._entries[number] = read_entry(self.run_of(number), number, self.search.packages)
        return self._entries[number]

    def trial(self, number: int) -> Trial:
        """How a trial is."""
        if number in self._ended:
            return self._ended[number]
        entry, run = self.entry(number), self.run_of(number)
        status, why = read_outcome(run) or ("waiting", "")
        experiment = entry.experiment
        trial = Trial(
            number=number,
            settings=entry.settings,
            num_episodes=experiment.num_steps * experiment.meta_batch_size,
            status=status,
            why=why,
            curve=curve_of(run, experiment, self.search.optimises),
            inherited=entry.origin.step * experiment.meta_batch_size if entry.origin else 0,
            tracking_run=json.loads(run.read(RUN_RECORD))["tracking_run"] if run.exists(RUN_RECORD) else None,
            seconds=newest_progress(run).clock.get("seconds", 0.0),
        )
        if status in ENDED and trial.tracking_run is not None:
            self._ended[number] = trial
        return trial

    def trials(self, running: Sequence[int] = ()) -> list[Trial]:
        """All of them, by number; those in `running` are so."""
        found = [self.trial(number) for number in self.numbers()]
        return [
            replace(trial, status="running") if trial.number in running and trial.status == "waiting" else trial
            for trial in found
        ]

    def step_of(self, number: int) -> int:
        """Of a trial's newest checkpoint."""
        return newest_progress(self.run_of(number)).step

    def run_of(self, number: int) -> Storage:
        """The folder of a trial."""
        return self.storage.child(trial_name(number))

    def copies(self, generation: int) -> list[tuple[int, Copy]] | None:
        """What was decided after a generation: the number of each new trial, and what it is; None before that."""
        name = _generation(generation)
        if not self.storage.exists(name):
            return None
        return [(tree["number"], Copy(**tree["copy"])) for tree in json.loads(self.storage.read(name))]

    def decide(self, generation: int, copies: Sequence[tuple[int, Copy]]) -> None:
        """Write down what was decided after a generation, before it is done."""
        tree = [{"number": number, "copy": copy._asdict()} for number, copy in copies]
        self.storage.write(_generation(generation), json.dumps(tree, indent=2).encode())

    def _is_there(self, number: int) -> bool:
        return self.run_of(number).exists(TRIAL)

    def _write_entry(self, entry: Entry) -> None:
        tree = entry._asdict() | {
            "experiment": entry.experiment.model_dump(mode="json"),
            "origin": entry.origin._asdict() if entry.origin else None,
        }
        self.run_of(entry.number).write(TRIAL, (json.dumps(tree, indent=2) + "\n").encode())
        self._entries[entry.number] = entry


def open_ledger(storage: Storage, search: Search, tags: Mapping[str, str]) -> Ledger:
    """The ledger of the search in `storage`, begun if there is none.

    Raises:
        InputError: if there is another search, or none but a run; shows the difference.
    """
    if storage.exists(RUN_RECORD):
        raise InputError(f"{storage.shown} is a run of `metaray train`, not a search; use another --run name")
    fingerprint = search.experiment.source.fingerprint
    if not storage.exists(SEARCH):
        header = Header(search, secrets.token_hex(16), fingerprint, dict(tags))
        tree = {"search": search.model_dump(mode="json"), "id": header.id, "fingerprint": fingerprint}
        storage.write(SEARCH, (json.dumps(tree | {"tags": header.tags}, indent=2) + "\n").encode())
        return Ledger(storage, header)
    header = read_header(storage, search.packages)
    changed = differences(header.search.model_dump(mode="json"), search.model_dump(mode="json"))
    if changed:
        listed = "\n  ".join(changed)
        raise InputError(f"{storage.shown} holds another search; use another --run name:\n  {listed}")
    if header.fingerprint != fingerprint:
        raise InputError(
            f"the search in {storage.shown} was started on other data: the source's fingerprint was "
            f"{header.fingerprint[:12]}..., now it is {fingerprint[:12]}..."
        )
    return Ledger(storage, header)


def read_header(storage: Storage, trust: Sequence[str] = ()) -> Header:
    """What `search.json` says; `trust` holds the packages besides metaray whose code it may name."""
    tree = json.loads(storage.read(SEARCH))
    context = {"trust": tuple(trust)}
    search = Search.parse(tree["search"], where=f"the search in {storage.shown}", context=context)
    return Header(search, tree["id"], tree["fingerprint"], tree["tags"])


def read_entry(run: Storage, number: int, trust: Sequence[str] = ()) -> Entry:
    """What `trial.json` of a trial's folder says; `trust` holds the packages whose code it may name."""
    tree = json.loads(run.read(TRIAL))
    context = {"trust": tuple(trust)}
    experiment = Experiment.parse(tree["experiment"], where=f"the experiment of {run.shown}", context=context)
    origin = Origin(**tree["origin"]) if tree["origin"] else None
    return Entry(number, tree["settings"], experiment, tree["fingerprint"], origin)


def read_outcome(run: Storage) -> tuple[Status, str] | None:
    """How a trial ended, and why; None before it has."""
    if not run.exists(OUTCOME):
        return None
    tree = json.loads(run.read(OUTCOME))
    return tree["status"], tree["why"]


def end_trial(run: Storage, status: Status, why: str = "") -> None:
    """Write down how a trial ended, unless that is known."""
    if read_outcome(run) is None:
        run.write(OUTCOME, (json.dumps({"status": status, "why": why}) + "\n").encode())


def curve_of(run: Storage, experiment: Experiment, objective: Objective) -> tuple[Judged, ...]:
    """The evaluations that a run's journal holds."""
    key = f"val/{objective.name}"
    found: dict[str, dict[int, float]] = {key: {}, key + HALF_WIDTH: {}}
    for metric in read_journal(run):
        if metric.key in found:
            found[metric.key][metric.step] = metric.value
    widths, size = found[key + HALF_WIDTH], experiment.meta_batch_size
    return tuple(
        Judged(step, step * size, value, widths.get(step, math.nan)) for step, value in sorted(found[key].items())
    )


def _generation(number: int) -> str:
    return f"generation-{number:03d}.json"
