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
"""The folder of what it learned, once it is finished."""
PROFILE = "profile"
"""The folder of a profile of some of its steps, where one was asked for."""
PROFILE_TRACE, PROFILE_TABLE = f"{PROFILE}/trace.json.gz", f"{PROFILE}/table.txt"
LOCK = "lock"


class RunRecord(Config):
    """What `run.json` says: what the name stands for, and where it comes from.

    Attributes:
        experiment: Experiment that the run trains.
        source_fingerprint: Fingerprint of its source; empty where nobody wrote it down.
        tracking_run: Id of its MLflow run; empty where it has none.
        tags: Where it comes from: code, versions, command.
        chunk_sizes: Episodes of a chunk by type of device; empty where nobody wrote them down when it was begun.
    """

    experiment: dict[str, Any]
    source_fingerprint: str = ""
    tracking_run: str = ""
    tags: dict[str, str] = {}
    chunk_sizes: dict[str, int] = {}


@dataclass(frozen=True)
class Run:
    """A run: its name, and its folder, where all that is known of it lies.

    What it says of itself is read from there when it is asked, since others write there, too: the process that trains,
    one that uploads, and one that goes on after a kill.

    Attributes:
        name: Name of the run.
        storage: Storage of the run alone.
    """

    name: str
    storage: Storage

    @classmethod
    def of(cls, root: Storage, experiment: "Experiment", name: str | None = None) -> Self:
        """The run called `name` where there is one, or a new one, of which nothing is written yet.

        Args:
            root: Storage of all runs.
            experiment: What it is to train.
            name: None makes a fresh one from the experiment's name, the time and four random digits.

        Raises:
            InputError: If the name is malformed, or belongs to a different experiment or other data.
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
        """The run called `name`.

        Raises:
            InputError: If there is none; it lists those there are.
        """
        if not NAME.fullmatch(name) or not root.child(name).exists(RECORD_FILE):
            known = [found for found in root.names() if root.exists(f"{found}/{RECORD_FILE}")]
            raise unknown(f"run in {root.shown}:", name, known)
        return cls(name, root.child(name))

    @property
    def is_begun(self) -> bool:
        """Whether its record was written."""
        return self.storage.exists(RECORD_FILE)

    @property
    def is_finished(self) -> bool:
        """Whether it has a result, of all its steps: one that was extended, and killed then, may have an old one."""
        if not self.storage.exists(RESULT):
            return False
        done = self.result.num_steps
        return not self.is_begun or bool(done == self.record.experiment.get("num_steps", done))

    @property
    def record(self) -> RunRecord:
        """What the name stands for.

        Raises:
            FileNotFoundError: If that was not written yet.
            InputError: If it is damaged.
        """
        remedy = "restore it from a copy, or train under another --run name"
        return read_record(self.storage, RECORD_FILE, RunRecord, remedy=remedy)

    @property
    def tracking_run(self) -> str | None:
        """Id of its MLflow run; None where it has none."""
        return self.record.tracking_run or None if self.is_begun else None

    @property
    def judged(self) -> Judged | None:
        """How each of its meta-test episodes went; None of an unfinished run, and of one of before that was kept.

        Raises:
            InputError: If it is damaged.
        """
        if not self.storage.exists(JUDGED):
            return None
        try:
            return Judged.from_json(self.storage.read(JUDGED), where=f"{self.storage.shown}/{JUDGED}")
        except InputError as error:
            raise InputError(f"{error}; delete it: the result itself does not need it") from None

    @property
    def result(self) -> Result:
        """What it found out.

        Raises:
            FileNotFoundError: If it is not finished.
            InputError: If it is damaged.
        """
        return read_result(self.storage)

    @property
    def profile(self) -> str | None:
        """The table of its profile; None where there is none."""
        return self.storage.read(PROFILE_TABLE).decode() if self.storage.exists(PROFILE_TABLE) else None

    @property
    def saved_steps(self) -> list[int]:
        """Outer steps of which there are checkpoints."""
        return saved_steps(self.storage)

    @property
    def metrics(self) -> list[Metric]:
        """All that was measured, by step and key, without what is damaged."""
        return read_journal(self.storage)

    def experiment(self, trust: Sequence[str] = ()) -> "Experiment":
        """What it trains.

        Args:
            trust: Packages besides metaray whose code the record may name, as somebody else may have written it.

        Raises:
            InputError: If it asks for code that is not trusted.
        """
        from metaray.experiment.experiment import Experiment

        where = f"experiment of run {self.name!r}"
        return Experiment.parse(self.record.experiment, where=where, context={"trust": tuple(trust)})

    def held(self) -> AbstractContextManager[None]:
        """Keep the run to this process within the block.

        Raises:
            InputError: Naming the process that has it.
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
        """Write down what the name stands for, before training starts; what was written before stays.

        Args:
            experiment: Experiment that the run trains.
            tags: Where it comes from.
            tracking_run: Id of its MLflow run, which replaces one from before.
            fingerprint: Fingerprint of its source, where that is known already.
            origin: Record of the run from whose end it starts, if it does: it goes on in that one's chunks.
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
        """The run must be one of this experiment on these data.

        Raises:
            InputError: If it is not; shows the difference.
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
        """The source must yield what it yielded when the run was begun, as far as that was written down.

        Raises:
            InputError: If it does not.
        """
        recorded = self.record.source_fingerprint
        if recorded and recorded != experiment.source.fingerprint:
            raise InputError(
                f"run {self.name!r} was started on other data: the source's fingerprint was "
                f"{recorded[:12]}..., now it is {experiment.source.fingerprint[:12]}...; "
                "bring those data back, or use another --run name"
            )

    def notes(self) -> tuple[str, ...]:
        """What of its metrics is damaged on disk, a sentence each."""
        reader = JournalReader(self.storage)
        known = {entry.key for entry in reader.read()}
        found = reader.damage(newest_progress(self.storage).segments)
        # No checkpoint counts the last segment, which comes after the last of them.
        if self.is_finished and known.isdisjoint(self.result.metrics):
            found.append(f"{JOURNAL_FOLDER} lacks the scores that {RESULT} has: its last segment is missing")
        return tuple(f"{self.storage.shown}/{damage}" for damage in found)


def held(storage: Storage) -> AbstractContextManager[None]:
    """Keep a folder to this process within the block.

    Raises:
        InputError: Naming the process that has it.
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
