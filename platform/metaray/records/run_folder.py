"""Run identity: a name means one experiment, in one folder, once."""

import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from metaray.config import NAME, Config, check_name
from metaray.errors import InputError, unknown
from metaray.experiment.experiment import Experiment
from metaray.experiment.overrides import differences
from metaray.experiment.packages import packages_of
from metaray.records.checked_json import read_record, write_record
from metaray.records.result import RESULT, Result, read_result
from metaray.records.storage import Storage

RUN_FILE = "run.json"
LOCK = "lock"


class RunRecord(Config):
    """What `run.json` says; the attributes are those of `RunFolder`.

    Attributes:
        experiment: that the run trains.
        source_fingerprint: of its source; empty where nobody wrote it down.
        tracking_run: id of its MLflow run; empty before that was created.
        tags: where it comes from.
    """

    experiment: dict[str, Any]
    source_fingerprint: str = ""
    tracking_run: str
    tags: dict[str, str] = {}


def read_run(storage: Storage) -> RunRecord:
    """The record of a run.

    Raises:
        FileNotFoundError: if there is none.
        InputError: if it is damaged.
    """
    return read_record(storage, RUN_FILE, RunRecord, remedy="restore it from a copy, or train under another --run name")


@dataclass(frozen=True)
class RunFolder:
    """A run's place in the storage.

    Attributes:
        name: of the run.
        storage: of the run alone.
        tracking_run: id of its MLflow run; None before that was created.
        result: of a finished run, else None.
        fingerprint: of its source; empty before it was recorded.
        tags: where it comes from: code, versions, command; empty before it was recorded.
    """

    name: str
    storage: Storage
    tracking_run: str | None = None
    result: Result | None = None
    fingerprint: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def reread(self) -> "RunFolder":
        """As it is on disk by now."""
        if not self.storage.exists(RUN_FILE):
            return self
        return _folder(self.name, self.storage, read_run(self.storage))

    def held(self) -> AbstractContextManager[None]:
        """Keep the run to this process within the block.

        Raises:
            InputError: naming the process that has it.
        """
        return held(self.storage)


def held(storage: Storage) -> AbstractContextManager[None]:
    """Keep a folder to this process within the block.

    Raises:
        InputError: naming the process that has it.
    """
    now = datetime.now(UTC)
    return storage.locked(LOCK, f"process {os.getpid()} on host {socket.gethostname()} since {now:%Y-%m-%d %H:%M} UTC")


def fresh_name(base: str) -> str:
    """`base`, the time and four random digits."""
    return f"{base}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def open_run(root: Storage, experiment: Experiment, name: str | None) -> RunFolder:
    """Find the run called `name`, or prepare a new one.

    Args:
        root: storage of all runs.
        experiment: what it is to train.
        name: None makes a fresh one from the experiment's name, the time and four random digits.

    Raises:
        InputError: if the name is malformed, or belongs to a different experiment; shows the difference.
    """
    if name is None:
        name = fresh_name(experiment.name)
    check_name(name, "run name")
    storage = root.child(name)
    if not storage.exists(RUN_FILE):
        if (initial := experiment.initial) is not None:
            more = experiment.num_steps - initial.step
            raise InputError(
                f"experiment {experiment.name} starts from step {initial.step} of run {initial.run!r}; make such a run "
                f"from that one: `metaray train RECIPE --run {initial.run} --extend {more}`"
            )
        return RunFolder(name, storage)
    record = read_run(storage)
    changed = differences(
        _with_defaults(record.experiment, packages_of(experiment)), experiment.model_dump(mode="json")
    )
    if changed:
        listed = "\n  ".join(changed)
        origin = record.experiment.get("initial") if experiment.initial is None else None
        how = f" (it starts from run {origin['run']!r}, and goes on as it was made: --extend)" if origin else ""
        raise InputError(f"run {name!r} exists with another experiment{how}; use another --run name:\n  {listed}")
    folder = _folder(name, storage, record)
    require_recorded_data(folder, experiment)
    return folder


def require_recorded_data(folder: RunFolder, experiment: Experiment) -> None:
    """The source must yield what it yielded when the run was begun, as far as that was written down.

    Raises:
        InputError: if it does not.
    """
    if folder.fingerprint and folder.fingerprint != experiment.source.fingerprint:
        raise InputError(
            f"run {folder.name!r} was started on other data: the source's fingerprint was "
            f"{folder.fingerprint[:12]}..., now it is {experiment.source.fingerprint[:12]}...; "
            "bring those data back, or use another --run name"
        )


def _with_defaults(recorded: dict[str, Any], trust: Sequence[str]) -> dict[str, Any]:
    """A recorded experiment with the fields that descriptions have got since; as it is where it is not valid now."""
    try:
        return Experiment.parse(recorded, where="recorded experiment", context={"trust": tuple(trust)}).model_dump(
            mode="json"
        )
    except InputError:
        return recorded


def find_run(root: Storage, name: str, trust: Sequence[str] = ()) -> tuple[Experiment, RunFolder]:
    """The run called `name`, and what it trains. Whether its data are there is not asked.

    Args:
        root: storage of all runs.
        name: of the run.
        trust: packages besides metaray whose code the record may name, as somebody else may have written it.

    Raises:
        InputError: if there is none (it lists those there are), or it asks for code that is not trusted.
    """
    if not NAME.fullmatch(name) or not root.child(name).exists(RUN_FILE):
        known = [found for found in root.names() if root.exists(f"{found}/{RUN_FILE}")]
        raise unknown(f"run in {root.shown}:", name, known)
    storage = root.child(name)
    record = read_run(storage)
    context = {"trust": tuple(trust)}
    experiment = Experiment.parse(record.experiment, where=f"experiment of run {name!r}", context=context)
    return experiment, _folder(name, storage, record)


def _folder(name: str, storage: Storage, record: RunRecord) -> RunFolder:
    result = read_result(storage) if storage.exists(RESULT) else None
    if result is not None and result.num_steps != record.experiment.get("num_steps", result.num_steps):
        result = None  # the run was extended, and killed before it put this aside
    return RunFolder(name, storage, record.tracking_run or None, result, record.source_fingerprint, record.tags)


def record_run(
    folder: RunFolder, experiment: Experiment, tracking_run: str, tags: Mapping[str, str] | None = None
) -> None:
    """Write down what the name stands for, before training starts."""
    record = {
        "experiment": experiment.model_dump(mode="json"),
        "source_fingerprint": folder.fingerprint or experiment.source.fingerprint,
        "tracking_run": tracking_run,
        "tags": dict(tags or {}),
    }
    write_record(folder.storage, RUN_FILE, record)
