"""Runs in MLflow: made by the driver, written to by whoever holds the run's id. No global MLflow state is touched."""

import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, final

from metaray.errors import InputError, RunFailed, redacted, shareable
from metaray.retry import SHORTLY, retry
from metaray.tracking.client import error_code, is_transient, open_client
from metaray.tracking.server import cause, prepare, sqlite_path, tracking_uri
from metaray.tracking.tracker import Metric, Tracker

__all__ = [
    "TrackingAway",
    "MlflowTracker",
    "asking",
    "create_run",
    "find_experiment",
    "find_tagged",
    "finish_run",
    "is_there",
    "log_metrics",
    "log_params",
    "prepare",
    "reopen_run",
    "set_tags",
    "status_of",
    "tracking_uri",
]

METRICS_A_CALL = 1000
ENTRIES_A_CALL = 100
PARAM_LENGTH = 6000
TAG_LENGTH = 8000
NOT_IN_KEYS = re.compile(r"[^\w\-. :/]")

FLUSH_EVERY_S = 2.0
CLOSE_WITHIN_S = 10.0

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]


class TrackingAway(RunFailed):
    """MLflow does not answer, or is busy: the same may work later."""


@contextmanager
def asking(uri: str, what: str = "MLflow could not be brought up to date") -> Iterator[None]:
    """Within the block, tell errors of MLflow and of the network in our words.

    Raises:
        TrackingAway: if the server does not answer.
        RunFailed: if it refuses.
    """
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        yield
    except (MlflowException, OSError) as error:
        network = isinstance(error, MlflowException | RequestException | ConnectionError | TimeoutError)
        kind = TrackingAway if network and is_transient(error) else RunFailed
        raise kind(f"{what} at {redacted(uri)!r}: {cause(error)}") from shareable(error)


def create_run(
    uri: str, experiment_name: str, run_name: str, params: Mapping[str, str], tags: Mapping[str, str]
) -> str:
    """Start a run and return its id. The experiment is made if it does not exist.

    Values longer than MLflow stores (6000 characters for a parameter, 8000 for a tag) are cut and say so.

    Raises:
        InputError: if the experiment was deleted.
    """
    experiment_id = _experiment(uri, experiment_name)
    short = {key: _cut(value, TAG_LENGTH) for key, value in tags.items()}
    run_id = str(open_client(uri).create_run(experiment_id, tags=short, run_name=run_name).info.run_id)
    log_params(uri, run_id, params)
    return run_id


def log_params(uri: str, run_id: str, params: Mapping[str, str]) -> None:
    """Store parameters; those that are there already must have the same values.

    Keys hold parameter patterns, too: what MLflow takes in no key is written by its code, `head.*` as `head.:2a:`.
    """
    client = open_client(uri)
    from mlflow.entities import Param

    items = [Param(NOT_IN_KEYS.sub(_code, key), _cut(value, PARAM_LENGTH)) for key, value in params.items()]
    for start in range(0, len(items), ENTRIES_A_CALL):
        client.log_batch(run_id, params=items[start : start + ENTRIES_A_CALL])


def _code(found: re.Match[str]) -> str:
    return f":{ord(found[0]):x}:"


def log_metrics(uri: str, run_id: str, metrics: Sequence[Metric]) -> None:
    """Store metrics, now. Infinite values become NaN, which charts show as a gap; what is there already stays so."""
    client = open_client(uri)
    from mlflow.entities import Metric as MlflowMetric

    finite = [
        MlflowMetric(key, value if math.isfinite(value) else math.nan, time_ms, step)
        for key, value, step, time_ms in metrics
    ]
    for start in range(0, len(finite), METRICS_A_CALL):
        client.log_batch(run_id, finite[start : start + METRICS_A_CALL])


def is_there(uri: str, run_id: str) -> bool:
    """Whether there is such a run, and it was not deleted."""
    from mlflow.exceptions import MlflowException

    try:
        return str(open_client(uri).get_run(run_id).info.lifecycle_stage) == "active"
    except MlflowException as error:
        if error_code(error) != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False


def status_of(uri: str, run_id: str) -> str:
    """What MLflow says of a run: RUNNING, FINISHED, FAILED or KILLED."""
    return str(open_client(uri).get_run(run_id).info.status)


def set_tags(uri: str, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run; what is there under their names is replaced."""
    client = open_client(uri)
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(key, _cut(value, TAG_LENGTH)) for key, value in tags.items()])


def find_tagged(uri: str, experiment_name: str, tags: Mapping[str, str]) -> str | None:
    """The id of the first run of an experiment that has all these tags; None if there is none."""
    experiment_id = find_experiment(uri, experiment_name)
    if experiment_id is None:
        return None
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    found = open_client(uri).search_runs([experiment_id], wanted, max_results=1, order_by=["attributes.start_time ASC"])
    return str(found[0].info.run_id) if found else None


def reopen_run(uri: str, run_id: str) -> None:
    """Mark a run as running again, to resume it."""
    open_client(uri).update_run(run_id, status="RUNNING")


def finish_run(uri: str, run_id: str, status: RunStatus = "FINISHED") -> None:
    """Mark a run as ended.

    Raises:
        RunFailed: if that can't be stored.
    """
    _now(lambda: open_client(uri).set_terminated(run_id, status), f"the end of run {run_id}", uri)


def _now(action: Callable[[], object], what: str, uri: str) -> None:
    """Do something at the server, with a second attempt."""
    with asking(uri, f"{what} could not be stored"):
        retry(action, on=Exception, transient=is_transient, waits=SHORTLY[:1])


def _experiment(uri: str, name: str) -> str:
    """The id of the experiment called `name`, made if necessary."""
    from mlflow.exceptions import MlflowException

    found = find_experiment(uri, name)
    if found is None:
        try:
            return str(open_client(uri).create_experiment(name, artifact_location=_artifact_location(uri, name)))
        except MlflowException as error:
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                raise
        found = find_experiment(uri, name)  # another process was faster
        assert found is not None
    return found


def find_experiment(uri: str, name: str) -> str | None:
    """The id of the experiment called `name`, None if there is none.

    Raises:
        InputError: if it was deleted: MLflow keeps its name.
    """
    found = open_client(uri).get_experiment_by_name(name)
    if found is None:
        return None
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
    """Writes to one run of MLflow.

    `log` only queues; a background thread imports MLflow and delivers about every two seconds. A server that is
    away for a while is tried again each time; MLflow drops what it already has, so nothing is written twice.

    Args:
        uri: of MLflow.
        run_id: of the run.
        reopen: mark the run as running again before its first metrics, for one that was resumed while MLflow was away.
        flush_every_s: between deliveries.
    """

    def __init__(self, uri: str, run_id: str, *, reopen: bool = False, flush_every_s: float = FLUSH_EVERY_S) -> None:
        self.uri = uri
        self.run_id = run_id
        self._reopen = reopen
        self._flush_every_s = flush_every_s
        self._waiting: list[Metric] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def log(self, metrics: Sequence[Metric]) -> None:
        """Queue `metrics`."""
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
            problem = self.problem or f"no answer from {redacted(self.uri)!r} within {within_s:g} s"
            raise RunFailed(f"{len(self._waiting)} metrics of run {self.run_id} could not be delivered: {problem}")

    def _deliver_until_closed(self) -> None:
        while not self._closing.wait(self._flush_every_s):
            self._deliver(waits=())
        self._deliver(waits=SHORTLY)

    def _deliver(self, waits: Sequence[float]) -> None:
        """Send what waits. A problem is kept for others to tell: training must not stop for it."""
        try:
            while self._waiting:
                batch = self._waiting[:METRICS_A_CALL]
                retry(lambda: self._send(batch), on=Exception, transient=is_transient, waits=waits)  # noqa: B023
                with self._lock:
                    del self._waiting[: len(batch)]
            self.problem = None
        except Exception as error:  # noqa: BLE001 - a thread has nobody to raise to; `close` does it
            self.problem = f"MLflow at {redacted(self.uri)!r} takes no metrics: {cause(error)}"

    def _send(self, batch: Sequence[Metric]) -> None:
        if self._reopen and not self._closing.is_set():
            reopen_run(self.uri, self.run_id)
            self._reopen = False
        log_metrics(self.uri, self.run_id, batch)
