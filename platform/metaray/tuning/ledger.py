"""The ledger of a search: what was proposed and how it ended, on disk before anyone acts on it.

The folder of a search is a storage of runs: each trial is a run of its own (`trial-0003`), with checkpoints, journal
and, of the winner, learner and result. Beside them lie `search.json`, and in each run `trial.json` and `outcome.json`.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from metaray.errors import InputError
from metaray.experiment.overrides import differences
from metaray.records.checkpoint_files import copy_checkpoint, newest_progress
from metaray.records.journal import Journal, JournalReader, Metric
from metaray.records.run import RECORD_FILE as RUN_RECORD
from metaray.records.run import Run
from metaray.records.storage import Storage
from metaray.tuning.ledger_files import (
    OUTCOME,
    SEARCH,
    TRIAL,
    Entry,
    Header,
    Origin,
    curve_in,
    curve_of,
    end_trial,
    read_copies,
    read_entry,
    read_header,
    read_outcome,
    write_copies,
    write_entry,
    write_header,
)
from metaray.tuning.population import Copy
from metaray.tuning.search import Search
from metaray.tuning.trial import ENDED, Trial, TrialStatus, trial_name

__all__ = [
    "OUTCOME",
    "SEARCH",
    "TRIAL",
    "Entry",
    "Header",
    "Ledger",
    "Origin",
    "curve_of",
    "end_trial",
    "open_ledger",
    "read_entry",
    "read_header",
    "read_outcome",
]


class Ledger:
    """Reads and writes the folder of a search.

    Only one process writes it, except that the process of a failing trial adds the trial's outcome.

    Args:
        storage: Storage of the search.
        header: What the ledger knows of the search.
    """

    def __init__(self, storage: Storage, header: Header) -> None:
        self.storage, self.header = storage, header
        self.search = header.search
        self._ended: dict[int, Trial] = {}
        self._seen: dict[int, Trial] = {}
        self._entries: dict[int, Entry] = {}
        self._readers: dict[int, JournalReader] = {}
        self._told: set[str] = set()

    def propose(self, number: int, settings: Mapping[str, Any], origin: Origin | None = None) -> Entry:
        """Record a new trial, and copy the state that it starts with.

        Raises:
            InputError: If the trial's values do not make a valid experiment; it is then recorded as failed.
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
            journal.append([metric for metric in self.journal(origin.trial) if metric.step <= origin.step])
            journal.flush(now=True)
            copy_checkpoint(donor, mine, origin.step)
        self._write_entry(entry)
        return entry

    def end(self, number: int, status: TrialStatus, why: str = "") -> None:
        """Write down how a trial ended, unless that is known."""
        end_trial(self.run_of(number), status, why)

    def numbers(self) -> list[int]:
        """Numbers of all trials that were proposed, ascending."""
        names = [name for name in self.storage.names() if name.startswith("trial-")]
        found = sorted(int(name.removeprefix("trial-")) for name in names if name.removeprefix("trial-").isdigit())
        return [number for number in found if number in self._entries or self._is_there(number)]

    def entry(self, number: int) -> Entry:
        """The record of a proposed trial."""
        if number not in self._entries:
            self._entries[number] = read_entry(self.run_of(number), number, self.search.packages)
        return self._entries[number]

    def trial(self, number: int) -> Trial:
        """The state of a trial, with its evaluations so far."""
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
            curve=curve_in(self.journal(number), experiment, self.search.optimises),
            inherited=entry.origin.step * experiment.meta_batch_size if entry.origin else 0,
            tracking_run=Run(trial_name(number), run).tracking_run,
            seconds=newest_progress(run).clock.get("seconds", 0.0),
        )
        if status in ENDED and trial.tracking_run is not None:
            self._ended[number] = trial
        self._seen[number] = trial
        return trial

    def trials(self, running: Sequence[int] = (), *, changed: int | None = None) -> list[Trial]:
        """The states of all trials, by number.

        Args:
            running: Numbers of the trials that are running.
            changed: Number of the only trial that has changed since the last look; None looks at all trials.
        """
        found = [
            self.trial(number) if changed in (None, number) or number not in self._seen else self._seen[number]
            for number in self.numbers()
        ]
        return [
            replace(trial, status="running") if trial.number in running and trial.status == "waiting" else trial
            for trial in found
        ]

    def journal(self, number: int) -> list[Metric]:
        """Metrics that a trial has recorded so far."""
        if number not in self._readers:
            self._readers[number] = JournalReader(self.run_of(number))
        return self._readers[number].read()

    def damage(self) -> list[str]:
        """Damage found in the trials' journals since the last call."""
        readers = sorted(self._readers.items())
        found = [f"{trial_name(number)}/{damage}" for number, reader in readers for damage in reader.damage()]
        fresh = [damage for damage in found if damage not in self._told]
        self._told.update(fresh)
        return fresh

    def step_of(self, number: int) -> int:
        """Step of a trial's newest checkpoint."""
        return newest_progress(self.run_of(number)).step

    def run_of(self, number: int) -> Storage:
        """Storage of a trial's folder."""
        return self.storage.child(trial_name(number))

    def copies(self, generation: int) -> list[tuple[int, Copy]] | None:
        """The copies decided after a generation, with the number of each new trial; None before the decision."""
        name = _generation(generation)
        if not self.storage.exists(name):
            return None
        return read_copies(self.storage, name)

    def decide(self, generation: int, copies: Sequence[tuple[int, Copy]]) -> None:
        """Record the copies decided after a generation, before they are made."""
        write_copies(self.storage, _generation(generation), copies)

    def _is_there(self, number: int) -> bool:
        return self.run_of(number).exists(TRIAL)

    def _write_entry(self, entry: Entry) -> None:
        write_entry(self.run_of(entry.number), entry)
        self._entries[entry.number] = entry


def open_ledger(storage: Storage, search: Search, tags: Mapping[str, str]) -> Ledger:
    """Open the ledger of the search in `storage`, or begin a new one.

    Raises:
        InputError: If the folder holds a different search (the message has the difference), or a run.
    """
    if storage.exists(RUN_RECORD):
        raise InputError(f"{storage.shown} is a run of `metaray train`, not a search; use another --run name")
    fingerprint = search.experiment.source.fingerprint
    if not storage.exists(SEARCH):
        header = Header(search, secrets.token_hex(16), fingerprint, dict(tags))
        write_header(storage, header)
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


def _generation(number: int) -> str:
    return f"generation-{number:03d}.json"
