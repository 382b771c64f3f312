"""A run that is on disk, brought to MLflow: what `metaray train` does at its end, for when it could not."""

from collections.abc import Sequence
from dataclasses import dataclass

from metaray.experiment.experiment import Experiment
from metaray.records.checkpoint import saved_steps
from metaray.records.run_folder import RunFolder, find_run, open_run
from metaray.records.storage import Storage
from metaray.tracking.mlflow_tracker import asking, finish_run, status_of
from metaray.tracking.promotion import Wish
from metaray.tracking.run_upload import Destination, Report, deliver, journal_notes, upload_metrics
from metaray.tracking.server import prepare, tracking_uri


@dataclass(frozen=True)
class Unfinished:
    """A run whose metrics were uploaded as far as they go.

    Attributes:
        run: its name.
        tracking_run: id of its MLflow run.
        tracking_uri: where that is.
        storage: folder or URI of all runs.
        step: of its newest checkpoint; 0 where there is none.
        num_steps: that it is to do.
        notes: what else the user should know, a sentence each.
    """

    run: str
    tracking_run: str
    tracking_uri: str
    storage: str
    step: int
    num_steps: int
    notes: tuple[str, ...] = ()


def upload(
    name: str,
    *,
    storage: str,
    tracking: str | None,
    register: bool,
    promote: bool = False,
    trust: Sequence[str] = (),
) -> Report | Unfinished:
    """Bring a run to MLflow. To do it twice is harmless.

    Args:
        name: of the run.
        storage: folder or URI of all runs.
        tracking: URI of MLflow; None takes MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory.
        register: put the best learner of a finished run into the registry.
        promote: make it champion whatever the comparison on meta-val says.
        trust: packages besides metaray whose code the run may name.

    Raises:
        InputError: if there is no such run, another process has it, nothing answers at the URI, or the learner cannot
            be compared with the champion because the data are not there.
        NotUploaded: if MLflow does not take a finished run.
        RunFailed: if it does not take an unfinished one's metrics.
    """
    root = Storage(storage)
    to = Destination(root.root, tracking_uri(tracking), Wish(register, promote))
    experiment, folder = find_run(root, name, trust)
    if folder.result is not None and register:
        open_run(root, experiment, name)  # checks the data, on which the learner is compared with the champion
    prepare(to.uri)
    with folder.held():
        _, folder = find_run(root, name, trust)  # again, because somebody may have finished it meanwhile
        if folder.result is not None:
            return deliver(experiment, folder, to)
        return _unfinished(experiment, folder, to)


def _unfinished(experiment: Experiment, folder: RunFolder, to: Destination) -> Unfinished:
    tracked = upload_metrics(folder, experiment, to.uri).tracking_run
    assert tracked is not None
    with asking(to.uri):
        if status_of(to.uri, tracked) == "RUNNING":
            finish_run(to.uri, tracked, "KILLED")  # this process holds the run, so nobody trains it
    step = max(saved_steps(folder.storage), default=0)
    return Unfinished(folder.name, tracked, to.uri, to.storage, step, experiment.num_steps, journal_notes(folder))
