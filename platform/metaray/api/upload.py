"""A run that is on disk, brought to MLflow: what `metaray train` does at its end, for when it could not."""

from collections.abc import Sequence
from dataclasses import dataclass

from metaray.api.checks import can_be_linked
from metaray.experiment.experiment import Experiment
from metaray.records.blobs import check_linkable
from metaray.records.run import Run
from metaray.records.storage import Storage
from metaray.tracking.mlflow_run import MlflowRun
from metaray.tracking.promotion import Wish
from metaray.tracking.report import Report
from metaray.tracking.run_upload import Destination, bring_metrics, deliver
from metaray.tracking.server import MlflowServer


@dataclass(frozen=True)
class Unfinished:
    """An unfinished run whose metrics were uploaded as far as they go.

    Attributes:
        run: The run.
        tracked: MLflow run that tracks the run.
        storage: Folder or URI of all runs.
        step: Step of the run's newest checkpoint; 0 if there is none.
        num_steps: Number of outer steps of the whole run.
        notes: Further messages for the user, one sentence each.
    """

    run: Run
    tracked: MlflowRun
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
    link_encoder: bool = False,
    trust: Sequence[str] = (),
) -> Report | Unfinished:
    """Upload a run from its folder to MLflow; repeating it is harmless.

    Args:
        name: Name of the run.
        storage: Folder or URI that holds the folders of all runs.
        tracking: URI of MLflow; None takes MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory.
        register: Whether to register the best learner of a finished run.
        promote: Whether to make it @champion whatever the comparison on meta-val says.
        link_encoder: Whether to keep the learner's frozen encoder in the storage, once for all versions that share it,
            instead of in the version.
        trust: Packages besides metaray whose code the run may name.

    Returns:
        The report of a finished run, or the state of an unfinished one.

    Raises:
        InputError: If there is no such run, another process holds it, nothing answers at the URI, or the learner cannot
            be compared with the champion because the data are missing.
        NotUploaded: If MLflow does not accept a finished run.
        RunFailed: If MLflow does not accept the metrics of an unfinished run.
    """
    root = Storage(storage)
    to = Destination(root.root, MlflowServer.of(tracking), Wish(register, promote, link_encoder))
    run = Run.find(root, name)
    experiment = run.experiment(trust)
    if link_encoder:
        check_linkable(can_be_linked(experiment))
    if run.is_finished and register:
        run.require_data(experiment)  # on which the learner is compared with the champion
    to.server.prepare()
    with run.held():
        if run.is_finished:  # asked now, because somebody may have finished it meanwhile
            return deliver(experiment, run, to)
        return _unfinished(experiment, run, to)


def _unfinished(experiment: Experiment, run: Run, to: Destination) -> Unfinished:
    tracked = bring_metrics(experiment, run, to.server).mlflow_run
    with to.server.asking():
        if tracked.status == "RUNNING":
            tracked.finish("KILLED")  # this process holds the run, so nobody trains it
    step = max(run.saved_steps, default=0)
    return Unfinished(run, tracked, to.storage, step, experiment.num_steps, run.notes())
