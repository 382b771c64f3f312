"""Run identity: a name means one experiment, in one folder, once."""

import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from metaray.config import NAME, Config, check_name
from metaray.errors import InputError, unknown
from metaray.records.checked_json import read_record, write_record
from metaray.records.checkpoint_files import newest_progress, saved_steps
from metaray.records.journal import JOURNAL_FOLDER, JournalReader, Metric, read_journal
from metaray.records.judged import JUDGED, Judged
from metaray.records.result import RESULT, Result, read_result
from metaray.records.storage import Storage

if TYPE_CHECKING:
    # Whoever lists runs needs no experiment, and no torch, which that imports.
    from metaray.experiment.experiment import Experiment

RECORD_FILE = "run.json"
LEARNER = "learner"
"""Name of the folder of a finished run's learner."""
PROFILE = "profile"
"""Name of the folder of a run's profile, if one was asked for."""
PROFILE_TRACE, PROFILE_TABLE = f"{PROFILE}/trace.json.gz", f"{PROFILE}/table.txt"
LOCK = "lock"


class RunRecord(Config):
    """Contents of `run.json`: the experiment of a run, and its provenance.

    Attributes:
        experiment: Experiment that the run trains.
        source_fingerprint: Fingerprint of the experiment's source; empty if it was not recorded.
        tracking_run: Id of the MLflow run; empty without one.
        tags: Provenance of the run: code, versions, command.
        chunk_sizes: Number of episodes of a chunk by type of device; empty if they were not recorded.
    """

    experiment: dict[str, Any]
    source_fingerprint: str = ""
    tracking_run: str = ""
    tags: dict[str, str] = {}
    chunk_sizes: dict[str, int] = {}


@dataclass(frozen=True)
class Run:
    """A run: its name, and the storage that holds everything known about it.

    Its properties are read from the storage each time, since other processes write there, too: the one that trains, one
    that uploads, and one that resumes after a kill.

    Attributes:
        name: Name of the run.
        storage: Storage of this run.
    """

    name: str
    storage: Storage

    @classmethod
    def of(cls, root: Storage, experiment: "Experiment", name: str | None = None) -> Self:
        """The run called `name`, or a new run for which nothing has been written yet.

        Args:
            root: Storage of all runs.
            experiment: Experiment that the run trains.
            name: Name of the run; None makes one from the experiment's name, the time and four random digits.

        Raises:
            InputError: If the name is malformed, or belongs to a run of another experiment or of other data.
        """
        if name is None:
            name = fresh_name(experiment.name)
        check_name(name, "run name")
        run = cls(name, root.child(name))
        if run.is_begun:
            run.require(experiment)
        elif (initial := experiment.initial) is not None:
            more = experiment.num_steps - initial.step
            raise InputError(
                f"experiment {experiment.name} starts from step {initial.step} of run {initial.run!r}; make such a run "
                f"from that one: `metaray train RECIPE --run {initial.run} --extend {more}`"
            )
        return run

    @classmethod
    def find(cls, root: Storage, name: str) -> Self:
        """The existing run called `name`.

        Raises:
            InputError: If there is no such run; the message lists those there are.
        """
        if not NAME.fullmatch(name) or not root.child(name).exists(RECORD_FILE):
            known = [found for found in root.names() if root.exists(f"{found}/{RECORD_FILE}")]
            raise unknown(f"run in {root.shown}:", name, known)
        return cls(name, root.child(name))

    @property
    def is_begun(self) -> bool:
        """Whether the run's record was written."""
        return self.storage.exists(RECORD_FILE)

    @property
    def is_finished(self) -> bool:
        """Whether the run has a result for all its steps; an extended run may have an older result."""
        if not self.storage.exists(RESULT):
            return False
        done = self.result.num_steps
        return not self.is_begun or bool(done == self.record.experiment.get("num_steps", done))

    @property
    def record(self) -> RunRecord:
        """Read the run's record.

        Raises:
            FileNotFoundError: If the record was not written yet.
            InputError: If the record is damaged.
        """
        remedy = "restore it from a copy, or train under another --run name"
        return read_record(self.storage, RECORD_FILE, RunRecord, remedy=remedy)

    @property
    def tracking_run(self) -> str | None:
        """Id of the MLflow run; None without one."""
        return self.record.tracking_run or None if self.is_begun else None

    @property
    def judged(self) -> Judged | None:
        """Scores of the single meta-test episodes; None for an unfinished run, and if they were not kept.

        Raises:
            InputError: If the file is damaged.
        """
        if not self.storage.exists(JUDGED):
            return None
        try:
            return Judged.from_json(self.storage.read(JUDGED), where=f"{self.storage.shown}/{JUDGED}")
        except InputError as error:
            raise InputError(f"{error}; delete it: the result itself does not need it") from None

    @property
    def result(self) -> Result:
        """Read the run's result.

        Raises:
            FileNotFoundError: If the run is not finished.
            InputError: If the result is damaged.
        """
        return read_result(self.storage)

    @property
    def profile(self) -> str | None:
        """Table of the run's profile; None without one."""
        return self.storage.read(PROFILE_TABLE).decode() if self.storage.exists(PROFILE_TABLE) else None

    @property
    def saved_steps(self) -> list[int]:
        """Outer steps that have checkpoints."""
        return saved_steps(self.storage)

    @property
    def metrics(self) -> list[Metric]:
        """Recorded metrics, by step and key, without damaged ones."""
        return read_journal(self.storage)

    def experiment(self, trust: Sequence[str] = ()) -> "Experiment":
        """The experiment that the run trains.

        Args:
            trust: Packages besides metaray whose code the record may name, since somebody else may have written it.

        Raises:
            InputError: If the record names code of a package that is not trusted.
        """
        from metaray.experiment.experiment import Experiment

        where = f"experiment of run {self.name!r}"
        return Experiment.parse(self.record.experiment, where=where, context={"trust": tuple(trust)})

    def held(self) -> AbstractContextManager[None]:
        """Within the block, hold the run for this process alone.

        Raises:
            InputError: If another process holds it; the message names that process.
        """
        return held(self.storage)

    def begin(
        self,
        experiment: "Experiment",
        *,
        tags: Mapping[str, str],
        tracking_run: str = "",
        fingerprint: str = "",
        origin: RunRecord | None = None,
    ) -> None:
        """Write the run's record before training starts; fields that were written before stay.

        Args:
            experiment: Experiment that the run trains.
            tags: Provenance of the run.
            tracking_run: Id of the MLflow run, which replaces an earlier one.
            fingerprint: Fingerprint of the source, if it is known already.
            origin: Record of the run that this one starts from, if any; its chunk sizes are kept.
        """
        # Only here, because the package of experiments needs torch, and runs are listed without.
        from metaray.experiment.chunking import chunk_sizes

        before = self.record if self.is_begun else None
        known = before or origin
        record = {
            "experiment": experiment.model_dump(mode="json"),
            "source_fingerprint": (before and before.source_fingerprint)
            or fingerprint
            or experiment.source.fingerprint,
            "tracking_run": tracking_run or (before.tracking_run if before else ""),
            "tags": dict((before and before.tags) or tags),
            "chunk_sizes": chunk_sizes(experiment) if known is None else known.chunk_sizes,
        }
        if before is None or record != before.model_dump(mode="json"):
            write_record(self.storage, RECORD_FILE, record)

    def begin_anew(self, experiment: "Experiment", tags: Mapping[str, str]) -> None:
        """Write down that the name stands for another experiment on the same data from now on.

        That has an MLflow run of its own, which is made when training starts.
        """
        record = {
            "experiment": experiment.model_dump(mode="json"),
            "source_fingerprint": self.record.source_fingerprint,
            "tracking_run": "",
            "tags": dict(tags),
            "chunk_sizes": self.record.chunk_sizes,
        }
        write_record(self.storage, RECORD_FILE, record)

    def require(self, experiment: "Experiment") -> None:
        """Check that the run is one of this experiment, on the same data.

        Raises:
            InputError: If it is not; the message has the difference.
        """
        from metaray.experiment.overrides import differences
        from metaray.experiment.packages import packages_of

        record = self.record
        recorded = _with_defaults(record.experiment, packages_of(experiment))
        changed = differences(recorded, experiment.model_dump(mode="json"))
        if changed:
            listed = "\n  ".join(changed)
            origin = record.experiment.get("initial") if experiment.initial is None else None
            how = f" (it starts from run {origin['run']!r}, and goes on as it was made: --extend)" if origin else ""
            raise InputError(
                f"run {self.name!r} exists with another experiment{how}; use another --run name:\n  {listed}"
            )
        self.require_data(experiment)

    def require_data(self, experiment: "Experiment") -> None:
        """Check that the source has the fingerprint that was recorded when the run was begun, if one was.

        Raises:
            InputError: If it has another one.
        """
        recorded = self.record.source_fingerprint
        if recorded and recorded != experiment.source.fingerprint:
            raise InputError(
                f"run {self.name!r} was started on other data: the source's fingerprint was "
                f"{recorded[:12]}..., now it is {experiment.source.fingerprint[:12]}...; "
                "bring those data back, or use another --run name"
            )

    def notes(self) -> tuple[str, ...]:
        """Damage of the run's metrics on disk, one sentence each."""
        reader = JournalReader(self.storage)
        known = {entry.key for entry in reader.read()}
        found = reader.damage(newest_progress(self.storage).segments)
        # No checkpoint counts the last segment, which comes after the last of them.
        if self.is_finished and known.isdisjoint(self.result.metrics):
            found.append(f"{JOURNAL_FOLDER} lacks the scores that {RESULT} has: its last segment is missing")
        return tuple(f"{self.storage.shown}/{damage}" for damage in found)


def held(storage: Storage) -> AbstractContextManager[None]:
    """Within the block, hold a folder for this process alone.

    Raises:
        InputError: If another process holds it; the message names that process.
    """
    now = datetime.now(UTC)
    return storage.locked(LOCK, f"process {os.getpid()} on host {socket.gethostname()} since {now:%Y-%m-%d %H:%M} UTC")


def fresh_name(base: str) -> str:
    """`base`, the time and four random digits."""
    return f"{base}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _with_defaults(recorded: dict[str, Any], trust: Sequence[str]) -> dict[str, Any]:
    """A recorded experiment with the fields that descriptions have got since; as it is where it is not valid now."""
    from metaray.experiment.experiment import Experiment

    try:
        return Experiment.parse(recorded, where="recorded experiment", context={"trust": tuple(trust)}).model_dump(
            mode="json"
        )
    except InputError:
        return recorded
