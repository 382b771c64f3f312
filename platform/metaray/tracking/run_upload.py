"""A run's way to MLflow: opened before training, brought there whole after it. Each step may be done again."""

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from metaray.errors import InputError, RunFailed, redacted
from metaray.experiment.experiment import Experiment
from metaray.experiment.overrides import flatten
from metaray.experiment.packages import packages_of
from metaray.records.checkpoint import newest_progress
from metaray.records.failure import FAILURE, failure_text
from metaray.records.journal import JournalReader, read_journal
from metaray.records.provenance import provenance
from metaray.records.result import Result
from metaray.records.run_folder import RunFolder, record_run, require_recorded_data
from metaray.retry import SHORTLY, retry
from metaray.tracking.mlflow_tracker import (
    MlflowTracker,
    RunStatus,
    TrackingAway,
    asking,
    create_run,
    finish_run,
    is_there,
    log_metrics,
    log_params,
)
from metaray.tracking.promotion import Decision, Wish
from metaray.tracking.registration import publish
from metaray.tracking.registry import ModelVersion
from metaray.tracking.server import Unreachable, prepare


@dataclass(frozen=True)
class Destination:
    """Where a run's record goes.

    Attributes:
        storage: folder or URI of all runs.
        uri: of MLflow.
        wish: what is to become of the best learner.
    """

    storage: str
    uri: str
    wish: Wish = Wish()  # noqa: RUF009 - frozen

    def command(self, run: str, trust: Iterable[str] = ()) -> str:
        """What to type to bring the run there; `trust` holds the packages that its record names."""
        places = ["--storage", redacted(self.storage), "--tracking-uri", redacted(self.uri)]
        named = [word for package in trust for word in ("--trust", package)]
        flags = {"--no-register": not self.wish.register, "--promote": self.wish.promote}
        words = [*places, *named, *(flag for flag, given in flags.items() if given)]
        return shlex.join(["metaray", "upload", run, *words])


@dataclass(frozen=True)
class Report:
    """How a run ended.

    Attributes:
        run: its name.
        tracking_run: id of its MLflow run; None if it never had one.
        tracking_uri: where that is.
        result: its figures.
        version: what was registered, if anything.
        decision: whether it became champion, and why.
        notes: what else the user should know, a sentence each.
    """

    run: str
    tracking_run: str | None
    tracking_uri: str
    result: Result
    version: ModelVersion | None = None
    decision: Decision | None = None
    notes: tuple[str, ...] = ()


class NotUploaded(RunFailed):
    """A run is trained and complete in its storage, but MLflow does not have all of it.

    Attributes:
        report: how it ended.
    """

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report


def open_tracking(folder: RunFolder, experiment: Experiment, uri: str) -> RunFolder:
    """The run with its MLflow run: the one that it has, if that is at `uri`, else a new one, which is written down.

    Raises:
        TrackingAway: if MLflow does not answer.
        RunFailed: if it refuses.
        InputError: if its experiment was deleted.
    """
    with asking(uri):
        tracked = folder.tracking_run
        if tracked is None or not is_there(uri, tracked):
            tags = dict(folder.tags) or provenance() | {
                "source.fingerprint": folder.fingerprint or experiment.source.fingerprint,
                "protocol": experiment.protocol,
            }
            tracked = create_run(uri, experiment.name, folder.name, {}, tags)
            record_run(folder, experiment, tracked, tags)
            folder = replace(folder, tracking_run=tracked, tags=tags)
        # Also for a run that was there: whoever made it may have been killed before this.
        log_params(uri, tracked, flatten(experiment.model_dump(mode="json")))
        MlflowTracker(uri, tracked).log_text(experiment.to_json(), "experiment.json")
    return folder


def upload_metrics(folder: RunFolder, experiment: Experiment, uri: str) -> RunFolder:
    """Bring the metrics of a run to its MLflow run, whatever is there already; returns the run with its MLflow run.

    Raises:
        TrackingAway: if MLflow does not answer.
        RunFailed: if it refuses.
        InputError: if its experiment was deleted.
    """
    folder = open_tracking(folder, experiment, uri)
    assert folder.tracking_run is not None
    with asking(uri):
        log_metrics(uri, folder.tracking_run, read_journal(folder.storage))
    return folder


def journal_notes(folder: RunFolder) -> tuple[str, ...]:
    """What of the run's metrics could not be brought anywhere, because it is damaged on disk."""
    reader = JournalReader(folder.storage)
    reader.read()
    written = newest_progress(folder.storage).segments
    return tuple(f"{folder.storage.shown}/{damage}" for damage in reader.damage(written))


def deliver(
    experiment: Experiment,
    folder: RunFolder,
    to: Destination,
    *,
    waits: Iterable[float] = SHORTLY,
    say: Callable[[str], None] = lambda text: None,
) -> Report:
    """Bring all of a trained run to MLflow.

    Args:
        experiment: that was trained.
        folder: of the run, which has a result.
        to: where.
        waits: between attempts while MLflow does not answer.
        say: told what takes a while.

    Raises:
        NotUploaded: if that can't be done, with the command that does it later.
    """
    assert folder.result is not None

    def attempt() -> Report:
        nonlocal folder
        folder = folder.reread()  # an attempt that broke off may have written down a new MLflow run
        return _deliver(experiment, folder, to, say)

    try:
        return retry(attempt, on=(TrackingAway, Unreachable), waits=waits)
    except BaseException as error:  # noqa: BLE001 - raised below
        known = isinstance(error, InputError | RunFailed)
        folder = folder.reread()
        assert folder.result is not None
        ended = _not_uploaded(experiment, folder, to, error) if known else error
        if folder.tracking_run is not None and not isinstance(error, TrackingAway | Unreachable):
            mark_ended(
                to.uri, folder.tracking_run, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", ended
            )
        raise ended from error.__cause__


def _not_uploaded(experiment: Experiment, folder: RunFolder, to: Destination, error: BaseException) -> NotUploaded:
    assert folder.result is not None
    again = to.command(folder.name, packages_of(experiment))
    return NotUploaded(
        f"run {folder.name!r} is trained and complete in {folder.storage.shown}, but could not be uploaded: "
        f"{str(error).rstrip('.')}. This uploads it, once that is mended: {again}",
        Report(folder.name, folder.tracking_run, to.uri, folder.result),
    )


def _deliver(experiment: Experiment, folder: RunFolder, to: Destination, say: Callable[[str], None]) -> Report:
    # Faster than MLflow's own attempts in finding out that nobody answers.
    prepare(to.uri)
    folder = upload_metrics(folder, experiment, to.uri)
    assert folder.tracking_run is not None and folder.result is not None
    if to.wish.register:
        require_recorded_data(folder, experiment)  # on which the learner is compared with the champion
    with asking(to.uri):
        version, decision = publish(experiment, folder, to.uri, folder.tracking_run, folder.result, to.wish, say=say)
    finish_run(to.uri, folder.tracking_run)
    notes = journal_notes(folder)
    return Report(folder.name, folder.tracking_run, to.uri, folder.result, version, decision, notes)


def mark_ended(uri: str, tracked: str, status: RunStatus, error: BaseException) -> None:
    """Mark the MLflow run, and say there why it failed; a server that is gone must not hide what ended the run."""
    try:
        if isinstance(error, RunFailed):
            MlflowTracker(uri, tracked).log_text(failure_text(error), FAILURE)
        finish_run(uri, tracked, status)
    except RunFailed as unmarked:
        error.add_note(str(unmarked))
