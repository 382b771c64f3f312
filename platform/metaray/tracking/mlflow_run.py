"""A run in MLflow: made by the driver, written to by whoever knows its id."""

import math
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from metaray.errors import InputError
from metaray.records.journal import Metric
from metaray.retry import SHORTLY, retry
from metaray.tracking.client import error_code, is_transient
from metaray.tracking.probes import sqlite_path
from metaray.tracking.server import MlflowServer

METRICS_A_CALL = 1000
ENTRIES_A_CALL = 100
PARAM_LENGTH = 6000
TAG_LENGTH = 8000
NOT_IN_KEYS = re.compile(r"[^\w\-. :/]")

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class MlflowRun:
    """A run of MLflow.

    Attributes:
        server: Server that the run is on.
        id: Id of the run.
    """

    server: MlflowServer
    id: str

    @classmethod
    def create(
        cls,
        server: MlflowServer,
        experiment_name: str,
        run_name: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
    ) -> Self:
        """Create a run, and the experiment if it does not exist.

        Values longer than MLflow stores (6000 characters for a parameter, 8000 for a tag) are cut and say so.

        Raises:
            InputError: If the experiment was deleted.
        """
        experiment_id = _experiment(server, experiment_name)
        short = {key: _cut(value, TAG_LENGTH) for key, value in tags.items()}
        made = server.client.create_run(experiment_id, tags=short, run_name=run_name)
        run = cls(server, str(made.info.run_id))
        run.log_params(params)
        return run

    @classmethod
    def tagged(cls, server: MlflowServer, experiment_name: str, tags: Mapping[str, str]) -> Self | None:
        """The first run of an experiment with all these tags; None if there is none."""
        experiment_id = find_experiment(server, experiment_name)
        if experiment_id is None:
            return None
        wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        order = ["attributes.start_time ASC"]
        found = server.client.search_runs([experiment_id], wanted, max_results=1, order_by=order)
        return cls(server, str(found[0].info.run_id)) if found else None

    @property
    def is_there(self) -> bool:
        """Whether the run exists and was not deleted."""
        from mlflow.exceptions import MlflowException

        try:
            return str(self.server.client.get_run(self.id).info.lifecycle_stage) == "active"
        except MlflowException as error:
            if error_code(error) != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False

    @property
    def status(self) -> str:
        """MLflow's status of the run: RUNNING, FINISHED, FAILED or KILLED."""
        return str(self.server.client.get_run(self.id).info.status)

    def log_params(self, params: Mapping[str, str]) -> None:
        """Log parameters; existing ones must have the same values.

        Keys contain parameter patterns, too: characters that MLflow forbids in keys are written as their codes,
        `head.*` as `head.:2a:`.
        """
        from mlflow.entities import Param

        items = [Param(NOT_IN_KEYS.sub(_code, key), _cut(value, PARAM_LENGTH)) for key, value in params.items()]
        for start in range(0, len(items), ENTRIES_A_CALL):
            self.server.client.log_batch(self.id, params=items[start : start + ENTRIES_A_CALL])

    def log_metrics(self, metrics: Sequence[Metric]) -> None:
        """Log metrics synchronously. Infinite values become NaN, a gap in charts; existing values stay."""
        from mlflow.entities import Metric as MlflowMetric

        finite = [
            MlflowMetric(key, value if math.isfinite(value) else math.nan, time_ms, step)
            for key, value, step, time_ms in metrics
        ]
        for start in range(0, len(finite), METRICS_A_CALL):
            self.server.client.log_batch(self.id, finite[start : start + METRICS_A_CALL])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, replacing existing ones of the same names."""
        from mlflow.entities import RunTag

        self.server.client.log_batch(
            self.id, tags=[RunTag(key, _cut(value, TAG_LENGTH)) for key, value in tags.items()]
        )

    def log_file(self, path: Path, folder: str = "") -> None:
        """Upload a file, or a folder under its own name, synchronously.

        Raises:
            RunFailed: If it cannot be stored.
        """
        client = self.server.client

        def upload() -> None:
            if path.is_dir():
                client.log_artifacts(self.id, str(path), f"{folder}/{path.name}" if folder else path.name)
            else:
                client.log_artifact(self.id, str(path), folder or None)

        self._now(upload, f"{str(path)!r}")

    def log_text(self, text: str, name: str) -> None:
        """Upload `text` as the file `name`, synchronously.

        Raises:
            RunFailed: If it cannot be stored.
        """
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / name
            path.write_text(text, encoding="utf-8")
            self.log_file(path)

    def reopen(self) -> None:
        """Mark the run as running again, when it is resumed."""
        self.server.client.update_run(self.id, status="RUNNING")

    def finish(self, status: RunStatus = "FINISHED") -> None:
        """Mark the run as ended.

        Raises:
            RunFailed: If the status cannot be stored.
        """
        self._now(lambda: self.server.client.set_terminated(self.id, status), f"the end of run {self.id}")

    def _now(self, action: Callable[[], object], what: str) -> None:
        """Do something at the server, with a second attempt."""
        with self.server.asking(f"{what} could not be stored"):
            retry(action, on=Exception, transient=is_transient, waits=SHORTLY[:1])


def find_experiment(server: MlflowServer, name: str) -> str | None:
    """Id of the MLflow experiment called `name`; None if there is none.

    Raises:
        InputError: If it was deleted: MLflow reserves the name.
    """
    found = server.client.get_experiment_by_name(name)
    if found is None:
        return None
    if found.lifecycle_stage == "deleted":
        raise InputError(
            f"experiment {name!r} was deleted at {server.shown!r}; use another name, or restore it with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}`"
        )
    return str(found.experiment_id)


def _experiment(server: MlflowServer, name: str) -> str:
    """The id of the experiment called `name`, made if necessary."""
    from mlflow.exceptions import MlflowException

    found = find_experiment(server, name)
    if found is None:
        try:
            return str(server.client.create_experiment(name, artifact_location=_artifact_location(server.uri, name)))
        except MlflowException as error:
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                raise
        found = find_experiment(server, name)  # another process was faster
        assert found is not None
    return found


def _artifact_location(uri: str, experiment_name: str) -> str | None:
    """Beside the SQLite database, wherever the command was started; a server decides for itself."""
    path = sqlite_path(uri)
    if path is None:
        return None
    folder = re.sub(r"[^A-Za-z0-9_.-]+", "-", experiment_name).strip(".-") or "experiment"
    return (path.absolute().parent / "mlartifacts" / folder).as_uri()


def _code(found: re.Match[str]) -> str:
    return f":{ord(found[0]):x}:"


def _cut(value: str, length: int) -> str:
    if len(value) <= length:
        return value
    note = f"... ({len(value)} characters)"
    return value[: length - len(note)] + note
