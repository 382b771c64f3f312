"""Runs in MLflow: made by the driver, written to by whoever holds the run's id. No global MLflow state is touched."""

import math
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, final

from metaray.errors import InputError, RunFailed
from metaray.tracking.client import error_code, is_transient, open_client, summary
from metaray.tracking.retry import retry
from metaray.tracking.server import prepare, redacted, sqlite_path, tracking_uri
from metaray.tracking.tracker import Metric, Tracker

__all__ = ["MlflowTracker", "create_run", "finish_run", "prepare", "reopen_run", "tracking_uri"]

METRICS_A_CALL = 1000
ENTRIES_A_CALL = 100
PARAM_LENGTH = 6000
TAG_LENGTH = 8000

FLUSH_EVERY_S = 2.0
CLOSE_WITHIN_S = 60.0

Status = Literal["FINISHED", "FAILED", "KILLED"]


def create_run(
    uri: str, experiment_name: str, run_name: str, params: Mapping[str, str], tags: Mapping[str, str]
) -> str:
    """Start a run and return its id. The experiment is made if it does not exist.

    Values longer than MLflow stores (6000 characters for a parameter, 8000 for a tag) are cut and say so.

    Raises:
        InputError: if the experiment was deleted.
    """
    client = open_client(uri)
    from mlflow.entities import Param

    experiment_id = _experiment(uri, experiment_name)
    short = {key: _cut(value, TAG_LENGTH) for key, value in tags.items()}
    run_id = str(client.create_run(experiment_id, tags=short, run_name=run_name).info.run_id)
    items = [Param(key, _cut(value, PARAM_LENGTH)) for key, value in params.items()]
    for start in range(0, len(items), ENTRIES_A_CALL):
        client.log_batch(run_id, params=items[start : start + ENTRIES_A_CALL])
    return run_id


def reopen_run(uri: str, run_id: str) -> None:
    """Mark a run as running again, to resume it.

    Raises:
        InputError: if there is no such run.
    """
    from mlflow.exceptions import MlflowException

    try:
        open_client(uri).update_run(run_id, status="RUNNING")
    except MlflowException as error:
        if is_transient(error):
            raise
        raise InputError(f"run {run_id!r} can't be resumed at {redacted(uri)!r}: {summary(error)}") from error


def finish_run(uri: str, run_id: str, status: Status = "FINISHED") -> None:
    """Mark a run as ended.

    Raises:
        RunFailed: if the server can't be reached any more.
    """
    _now(lambda: open_client(uri).set_terminated(run_id, status), f"the end of run {run_id}", uri)


def _now(action: Callable[[], object], what: str, uri: str) -> None:
    """Do something at the server, with retries."""
    from mlflow.exceptions import MlflowException

    try:
        retry(action, on=(MlflowException, OSError), transient=is_transient, attempts=2)
    except (MlflowException, OSError) as error:
        raise RunFailed(f"{what} could not be stored at {redacted(uri)!r}: {redacted(summary(error))}") from error


def _experiment(uri: str, name: str) -> str:
    """The id of the experiment called `name`, made if necessary."""
    from mlflow.exceptions import MlflowException

    client = open_client(uri)
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=_artifact_location(uri, name)))
        except MlflowException as error:
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.get_experiment_by_name(name)  # another process was faster
        assert found is not None
    if found.lifecycle_stage == "deleted":
        raise InputError(
            f"experiment {name!r} was deleted at {redacted(uri)!r}; use another name, or restore it with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}`"
        )
    return str(found.experiment_id)


def _artifact_location(uri: str, experiment_name: str) -> str | None:
    """Beside the SQLite database, wherever the command was started; a server decides for itself."""
    path = sqlite_path(uri)
    if path is None:
        return None
    folder = re.sub(r"[^A-Za-z0-9_.-]+", "-", experiment_name).strip(".-") or "experiment"
    return (path.absolute().parent / "mlartifacts" / folder).as_uri()


def _cut(value: str, length: int) -> str:
    if len(value) <= length:
        return value
    note = f"... ({len(value)} characters)"
    return value[: length - len(note)] + note


@final
class MlflowTracker(Tracker):
    """Writes to one run of MLflow. It holds two strings, so it can be sent to another process.

    `log` only queues; a background thread imports MLflow and delivers about every two seconds. A server that is
    away for a while is tried again each time; MLflow drops what it already has, so nothing is written twice.
    """

    def __init__(self, uri: str, run_id: str, *, flush_every_s: float = FLUSH_EVERY_S) -> None:
        self.uri = uri
        self.run_id = run_id
        self._flush_every_s = flush_every_s
        self._waiting: list[Metric] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Metrics that wait stay with the process that logged them."""
        return (MlflowTracker, (self.uri, self.run_id))

    @property
    def problem(self) -> str | None:
        """Why metrics are waiting, while the server does not take them."""
        error = self._error
        if error is None:
            return None
        return f"{len(self._waiting)} metrics wait for {redacted(self.uri)!r}: {redacted(summary(error))}"

    def log(self, metrics: Sequence[Metric]) -> None:
        """Queue `metrics`. Infinite values are stored as NaN, which charts show as a gap."""
        if self._closing.is_set():
            raise RunFailed(f"metrics logged to run {self.run_id} after its tracker was closed")
        with self._lock:
            self._waiting.extend(metrics)
            if self._thread is None:
                self._thread = threading.Thread(target=self._deliver_until_closed, name="mlflow-metrics", daemon=True)
                self._thread.start()

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Upload a file or a folder, now.

        Raises:
            RunFailed: if it can't be stored.
        """

        def upload() -> None:
            if path.is_dir():
                target = f"{folder}/{path.name}" if folder else path.name
                open_client(self.uri).log_artifacts(self.run_id, str(path), target)
            else:
                open_client(self.uri).log_artifact(self.run_id, str(path), folder or None)

        _now(upload, f"{str(path)!r}", self.uri)

    def close(self, within_s: float = CLOSE_WITHIN_S) -> None:
        """Deliver everything.

        Raises:
            RunFailed: if metrics are left after some retries, or after `within_s` seconds.
        """
        self._closing.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(within_s)
        if self._waiting:
            cause = f"no answer within {within_s:g} s" if self._error is None else redacted(summary(self._error))
            message = f"{len(self._waiting)} metrics of run {self.run_id} could not be delivered to"
            raise RunFailed(f"{message} {redacted(self.uri)!r}: {cause}") from self._error

    def _deliver_until_closed(self) -> None:
        while not self._closing.wait(self._flush_every_s):
            self._deliver(attempts=1)
        self._deliver(attempts=4)

    def _deliver(self, attempts: int) -> None:
        """Send what waits. An error is kept for `close` to raise: training must not stop for it."""
        try:
            while self._waiting:
                batch = self._waiting[:METRICS_A_CALL]
                retry(lambda: self._send(batch), on=Exception, transient=is_transient, attempts=attempts)  # noqa: B023
                with self._lock:
                    del self._waiting[: len(batch)]
            self._error = None
        except Exception as error:  # noqa: BLE001 - a thread has nobody to raise to; `close` does it
            self._error = error

    def _send(self, batch: Sequence[Metric]) -> None:
        client = open_client(self.uri)
        from mlflow.entities import Metric as MlflowMetric

        finite = ((key, value if math.isfinite(value) else math.nan, at, step) for key, value, step, at in batch)
        client.log_batch(self.run_id, [MlflowMetric(key, value, at, step) for key, value, at, step in finite])
