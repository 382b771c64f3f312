"""A trained run brought to MLflow whole, and to other trackers. Each step may be done again."""

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from metaray.errors import InputError, RunFailed, redacted
from metaray.experiment.experiment import Experiment
from metaray.experiment.packages import packages_of
from metaray.records.failure import failure_text
from metaray.records.run import Run
from metaray.retry import SHORTLY, retry
from metaray.tracking.feed import JournalFeed
from metaray.tracking.mlflow_run import MlflowRun
from metaray.tracking.mlflow_tracker import MlflowTracker
from metaray.tracking.promotion import Wish
from metaray.tracking.registration import publish
from metaray.tracking.report import NotUploaded, Report
from metaray.tracking.run_files import log_files
from metaray.tracking.server import MlflowServer, TrackingAway, Unreachable
from metaray.tracking.tracker import Ending, Tracker


@dataclass(frozen=True)
class Destination:
    """The MLflow server and storage that a run's record is uploaded to.

    Attributes:
        storage: Folder or URI of all runs.
        server: MLflow server.
        wish: What is to be done with the best learner.
    """

    storage: str
    server: MlflowServer
    wish: Wish = Wish()  # noqa: RUF009 - frozen

    def command(self, run: str, trust: Iterable[str] = ()) -> str:
        """The command that uploads the run there; `trust` lists the packages that its record names."""
        places = ["--storage", redacted(self.storage), "--tracking-uri", self.server.shown]
        named = [word for package in trust for word in ("--trust", package)]
        flags = {"--no-register": not self.wish.register, "--promote": self.wish.promote}
        flags["--link-encoder"] = self.wish.link
        words = [*places, *named, *(flag for flag, given in flags.items() if given)]
        return shlex.join(["metaray", "upload", run, *words])


def deliver(
    experiment: Experiment,
    run: Run,
    to: Destination,
    *,
    waits: Iterable[float] = SHORTLY,
    say: Callable[[str], None] = lambda text: None,
) -> Report:
    """Upload everything about a trained run to MLflow.

    Args:
        experiment: Experiment that was trained.
        run: The finished run.
        to: Destination of the upload.
        waits: Seconds between attempts while MLflow does not answer.
        say: Function that is called with messages about what takes a while.

    Raises:
        NotUploaded: If the upload fails; the message has the command that repeats it later.
    """
    try:
        # An attempt that broke off may have written down a new MLflow run.
        return retry(lambda: _deliver(experiment, run, to, say), on=(TrackingAway, Unreachable), waits=waits)
    except BaseException as error:  # noqa: BLE001 - raised below
        known = isinstance(error, InputError | RunFailed)
        ended = _not_uploaded(experiment, run, to, error) if known else error
        tracked = run.tracking_run
        if tracked is not None and not isinstance(error, TrackingAway | Unreachable):
            ending: Ending = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            mark_ended([MlflowTracker.of(MlflowRun(to.server, tracked))], ending, ended)
        raise ended from error.__cause__


def _not_uploaded(experiment: Experiment, run: Run, to: Destination, error: BaseException) -> NotUploaded:
    again = to.command(run.name, packages_of(experiment))
    return NotUploaded(
        f"run {run.name!r} is trained and complete in {run.storage.shown}, but could not be uploaded: "
        f"{str(error).rstrip('.')}. This uploads it, once that is mended: {again}",
        Report(run, run.result, None if run.tracking_run is None else MlflowRun(to.server, run.tracking_run)),
    )


def _deliver(experiment: Experiment, run: Run, to: Destination, say: Callable[[str], None]) -> Report:
    # Faster than MLflow's own attempts in finding out that nobody answers.
    to.server.prepare()
    tracker = bring_metrics(experiment, run, to.server)
    if to.wish.register:
        run.require_data(experiment)  # on which the learner is compared with the champion
    with to.server.asking():
        version, decision = publish(experiment, run, tracker, to.wish, storage=to.storage, say=say)
    tracker.end("finished")
    return Report(run, run.result, tracker.mlflow_run, version, decision, run.notes())


def bring_metrics(experiment: Experiment, run: Run, server: MlflowServer) -> MlflowTracker:
    """Upload the metrics of a run that its MLflow run lacks; returns the tracker.

    Raises:
        TrackingAway: If MLflow does not answer.
        RunFailed: If MLflow refuses the request.
        InputError: If the MLflow experiment was deleted.
    """
    tracker = MlflowTracker.opened(server, experiment, run)
    JournalFeed(run, tracker).send()
    return tracker


def finish(experiment: Experiment, run: Run, tracker: Tracker) -> None:
    """Send everything about a trained run to a tracker without a registry.

    Raises:
        RunFailed: If the tracker does not accept it; the run is complete in its folder all the same.
    """
    try:
        JournalFeed(run, tracker).send()
        log_files(experiment, run, tracker)
        tracker.end("finished")
    except Exception as error:
        raise NotUploaded(
            f"run {run.name!r} is trained and complete in {run.storage.shown}, but {tracker.title} does not take all "
            f"of it: {error}. The same command with --run {run.name} tries again",
            Report(run, run.result),
        ) from error


def mark_ended(trackers: Iterable[Tracker], ending: Ending, error: BaseException) -> None:
    """Close the trackers' records, with the reason why a run failed; a missing server does not hide that reason."""
    why = failure_text(error) if isinstance(error, RunFailed) else ""
    for tracker in trackers:
        try:
            tracker.end(ending, why)
        except Exception as problem:  # noqa: BLE001 - a tracker may raise anything
            error.add_note(redacted(str(problem)))
