"""The tracker that writes to a run of MLflow."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Self, final

from metaray.experiment.experiment import Experiment
from metaray.experiment.overrides import flatten
from metaray.records.failure import FAILURE
from metaray.records.journal import Metric
from metaray.records.provenance import provenance
from metaray.records.run import Run
from metaray.tracking.client import quiet_mlflow
from metaray.tracking.database_file import takes_run
from metaray.tracking.mlflow_run import MlflowRun, RunStatus, find_experiment
from metaray.tracking.server import MlflowServer, TrackingAway, Unreachable
from metaray.tracking.story import NOTE, log_data, open_in_training_view, run_note, source_tags
from metaray.tracking.tracker import Ending, Tracker

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

SYSTEM_METRICS = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"

_opening = RLock()
"""The lock of all trackers of this process: none makes a second MLflow run of a run while another makes the first."""

STATUSES: dict[Ending, RunStatus] = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


@final
class MlflowTracker(Tracker):
    """Tracks a run in one MLflow run, whose id is kept in the run's record.

    Args:
        server: MLflow server.
    """

    kind = "mlflow"
    title = "MLflow"

    def __init__(self, server: MlflowServer) -> None:
        self.server = server
        self._begun: MlflowRun | None = None
        self._monitor: SystemMetricsMonitor | None = None
        self._reopen = False
        self._sure = False
        self._put_off: Callable[[], None] | None = None

    @classmethod
    def at(cls, uri: str | None) -> Self:
        """A tracker at a tracking URI; None takes MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory."""
        server = MlflowServer.of(uri)
        server.glance()
        return cls(server)

    @classmethod
    def opened(cls, server: MlflowServer, experiment: Experiment, run: Run) -> Self:
        """A tracker for the MLflow run of a run that is not being trained; its status is unchanged.

        Raises:
            TrackingAway: If MLflow does not answer.
            RunFailed: If MLflow refuses the request.
            InputError: If the MLflow experiment was deleted.
        """
        return cls.of(open_mlflow_run(server, experiment, run))

    @classmethod
    def of(cls, mlflow_run: MlflowRun) -> Self:
        """A tracker for an existing MLflow run."""
        tracker = cls(mlflow_run.server)
        tracker._begun = mlflow_run
        return tracker

    @property
    def mlflow_run(self) -> MlflowRun:
        """The MLflow run; it exists once the tracker is open."""
        assert self._begun is not None
        return self._begun

    @property
    def place(self) -> str:
        """Id of the MLflow run; a run elsewhere is sent everything that the first one had."""
        return self.mlflow_run.id

    def is_sure(self, experiment: Experiment, run: Run) -> bool:
        """True for a new run in a database on disk, unless MLflow measures this machine from the start."""
        is_new = run.tracking_run is None and not os.environ.get(SYSTEM_METRICS)
        self._sure = is_new and takes_run(self.server.uri, experiment.name)
        return self._sure

    def load(self) -> None:
        """Import MLflow."""
        quiet_mlflow()

    def check(self, experiment: Experiment, run: Run) -> None:
        """Check that the server answers and accepts the run; a resumed run waits for a server that is away."""
        tracked = run.tracking_run
        try:
            self.server.prepare()
            if tracked is None:
                with self.server.asking():
                    find_experiment(self.server, experiment.name)
        except Unreachable:
            if tracked is None:
                raise

    def begin(self, experiment: Experiment, run: Run, say: Callable[[str], None]) -> None:
        """Open the run's MLflow run, or create one. Resuming needs no server: metrics wait meanwhile.

        All of this is put off if it is certain to work: MLflow takes seconds to load, which the first step need not
        wait for.
        """
        self._put_off = partial(self._begin, experiment, run, say)
        if not self._sure:
            self.open()

    def open(self) -> None:
        """Open the MLflow run, if that was put off."""
        with _opening:
            if self._put_off is not None:
                self._put_off()
                self._put_off = None

    def _begin(self, experiment: Experiment, run: Run, say: Callable[[str], None]) -> None:
        before = run.tracking_run
        try:
            self.server.prepare()
            found = open_mlflow_run(self.server, experiment, run)
            with self.server.asking():
                found.reopen()
        except (Unreachable, TrackingAway) as away:
            self.problem = str(away)
            before = run.tracking_run  # before it went away it may have made a new one
            if before is None:
                raise
            found, self._reopen = MlflowRun(self.server, before), True
        self._begun = found
        self._monitor = _system_monitor(found)
        if before not in (None, found.id):
            say(f"MLflow run {before} is not at {self.server.shown!r}: a new one holds the whole run")

    def log(self, metrics: Sequence[Metric]) -> None:
        """Log metrics; MLflow drops those that it has already, so nothing is there twice."""
        self.open()
        with self.server.asking("MLflow takes no metrics"):
            if self._reopen:
                self.mlflow_run.reopen()
                self._reopen = False
            self.mlflow_run.log_metrics(metrics)

    def describe(self, facts: Mapping[str, str]) -> None:
        """Set the facts as tags."""
        self.open()
        with self.server.asking("MLflow takes no tags"):
            self.mlflow_run.set_tags(facts)

    def log_file(self, path: Path, folder: str = "") -> None:
        """Upload the file as an artifact."""
        self.open()
        self.mlflow_run.log_file(path, folder)

    def leave(self) -> None:
        """Measure the machine no more."""
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None

    def end(self, ending: Ending, why: str = "") -> None:
        """Mark the MLflow run as ended, with the reason if it failed.

        Raises:
            RunFailed: If that cannot be stored.
        """
        self.open()
        self._reopen = False
        if why:
            self.mlflow_run.log_text(why, FAILURE)
        self.mlflow_run.finish(STATUSES[ending])


def _system_monitor(run: MlflowRun) -> "SystemMetricsMonitor | None":
    """What measures this machine while the run goes on, where MLflow's own environment variable asks for that."""
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING

    if not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        return None
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run.id, resume_logging=True, tracking_uri=run.server.uri)
    monitor.start()
    return monitor


def open_mlflow_run(server: MlflowServer, experiment: Experiment, run: Run) -> MlflowRun:
    """Open the MLflow run in the run's record, if it is on `server`; else create one and record it.

    Raises:
        TrackingAway: If MLflow does not answer.
        RunFailed: If MLflow refuses the request.
        InputError: If the MLflow experiment was deleted.
    """
    with server.asking(), _opening:
        tracked = run.tracking_run
        found = None if tracked is None else MlflowRun(server, tracked)
        if found is None or not found.is_there:
            record = run.record if run.is_begun else None
            tags = dict(record.tags) if record and record.tags else origin_of(experiment)
            found = MlflowRun.create(server, experiment.name, run.name, {}, tags | source_tags(tags))
            run.begin(experiment, tags=tags, tracking_run=found.id)
            found.set_tags({NOTE: run_note(experiment, None, found, tags.get("command", ""))})
        # Also for a run that was there: whoever made it may have been killed before this.
        found.log_params(flatten(experiment.model_dump(mode="json")))
        found.log_text(experiment.to_json(), "experiment.json")
        log_data(found, experiment, run.record.source_fingerprint or experiment.source.fingerprint)
        open_in_training_view(server, experiment)
    return found


def origin_of(experiment: Experiment) -> dict[str, str]:
    """Tags that say where a run comes from: code, versions, command, data, protocol."""
    return provenance() | {"source.fingerprint": experiment.source.fingerprint, "protocol": experiment.protocol}
