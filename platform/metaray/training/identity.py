"""Run identity: a name means one experiment, in one folder, once."""

import json
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from metaray.errors import InputError
from metaray.training.experiment import Experiment
from metaray.training.overrides import differences
from metaray.training.result import RESULT, Result
from metaray.training.storage import Storage

RECORD = "run.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class RunFolder:
    """A run's place in the storage.

    Attributes:
        name: of the run.
        storage: of the run alone.
        tracking_run: id of its MLflow run; None before that was created.
        result: of a finished run, else None.
    """

    name: str
    storage: Storage
    tracking_run: str | None = None
    result: Result | None = None


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
        name = f"{experiment.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    if not NAME.fullmatch(name):
        raise InputError(f"run name {name!r}: use letters, digits, '.', '_' and '-'")
    storage = root.child(name)
    if not storage.exists(RECORD):
        return RunFolder(name, storage)
    record = json.loads(storage.read(RECORD))
    changed = differences(record["experiment"], experiment.model_dump(mode="json"))
    if changed:
        listed = "\n  ".join(changed)
        raise InputError(f"run {name!r} exists with another experiment; use another --run name:\n  {listed}")
    if record["source_fingerprint"] != experiment.source.fingerprint:
        raise InputError(
            f"run {name!r} was started on other data: the source's fingerprint was "
            f"{record['source_fingerprint'][:12]}..., now it is {experiment.source.fingerprint[:12]}..."
        )
    result = Result.from_json(storage.read(RESULT).decode()) if storage.exists(RESULT) else None
    return RunFolder(name, storage, record["tracking_run"], result)


def record_run(folder: RunFolder, experiment: Experiment, tracking_run: str) -> None:
    """Write down what the name stands for, before training starts."""
    record = {
        "experiment": experiment.model_dump(mode="json"),
        "source_fingerprint": experiment.source.fingerprint,
        "tracking_run": tracking_run,
    }
    folder.storage.write(RECORD, (json.dumps(record, indent=2, sort_keys=True) + "\n").encode())
