"""One run, composed: experiment -> trainer -> tracker -> registry."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from metaray.errors import RunFailed, RunStopped
from metaray.tracking.client import quiet_mlflow
from metaray.tracking.listener import TrackingListener
from metaray.tracking.mlflow_tracker import (
    MlflowTracker,
    create_run,
    finish_run,
    prepare,
    reopen_run,
    tracking_uri,
)
from metaray.tracking.promotion import Decision
from metaray.tracking.provenance import provenance
from metaray.tracking.publishing import publish
from metaray.tracking.registry import ModelVersion
from metaray.training.device import choose_device
from metaray.training.events import Event, Fanout, Listener, entering
from metaray.training.experiment import Experiment
from metaray.training.identity import RunFolder, open_run, record_run
from metaray.training.local import train_in_process
from metaray.training.overrides import flatten
from metaray.training.placement import Placement
from metaray.training.preflight import check_shares, preflight
from metaray.training.result import Result
from metaray.training.storage import Storage


@dataclass(frozen=True)
class Options:
    """Where and how a run runs; nothing here changes what it computes.

    Attributes:
        placement: workers and samplers; 0 workers train in this process without Ray.
        run: its name; None makes a new one.
        storage: folder or URI of all runs.
        tracking_uri: of MLflow; None takes MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory.
        register: put the best learner into the registry.
    """

    placement: Placement = Placement()  # noqa: RUF009 - frozen
    run: str | None = None
    storage: str = "runs"
    tracking_uri: str | None = None
    register: bool = True


@dataclass(frozen=True)
class Report:
    """How a run ended.

    Attributes:
        run: its name.
        tracking_run: id of its MLflow run.
        tracking_uri: where that is.
        result: its figures.
        version: what was registered, if anything.
        decision: whether it became champion, and why.
    """

    run: str
    tracking_run: str
    tracking_uri: str
    result: Result
    version: ModelVersion | None
    decision: Decision | None


def run(
    experiment: Experiment, options: Options, display: Listener, *, should_stop: Callable[[], bool] = lambda: False
) -> Report:
    """Train, track, register.

    Raises:
        InputError: before anything starts, if the input is wrong.
        RunFailed: if training failed; the MLflow run is marked so.
        RunStopped: if `should_stop` said so; the same call with the same `options.run` goes on.
    """
    uri = tracking_uri(options.tracking_uri)
    display.on_event(entering("checks"))
    # MLflow takes seconds to import: let that overlap with the checks. Nothing is written before all of them passed.
    with ThreadPoolExecutor(max_workers=1) as pool:
        imported = pool.submit(quiet_mlflow)
        preflight(experiment)
        root = Storage(options.storage)
        root.check_writable()
        folder = open_run(root, experiment, options.run)
        if folder.result is None:
            _check_place(experiment, options.placement, display)
        display.on_event(entering("MLflow"))
        imported.result()
    prepare(uri)
    tracked = _tracked_run(folder, experiment, uri)
    display.on_event(Event("note", 0, {}, time.time(), f"run: {folder.name}"))
    try:
        result = folder.result or _train(
            experiment, options, folder.storage, MlflowTracker(uri, tracked), display, should_stop
        )
        version, decision = publish(experiment, folder, uri, tracked, result, register_it=options.register)
    except BaseException as error:
        _mark_ended(uri, tracked, error)
        if isinstance(error, RunStopped):
            raise RunStopped(f"{error}; --run {folder.name} goes on from there") from None
        raise
    finish_run(uri, tracked, "FINISHED")
    return Report(folder.name, tracked, uri, result, version, decision)


def _check_place(experiment: Experiment, placement: Placement, display: Listener) -> None:
    """Find out whether there is room and the device asked for, before anything of the run is written."""
    if placement.in_process:
        choose_device(placement.device)
        return
    check_shares(experiment, placement.workers.most, torch.device("cuda" if placement.device == "cuda" else "cpu"))
    # Only here, because a run in process needs no Ray at all.
    from metaray.training.cluster import connect, uses_gpu

    display.on_event(entering("Ray"))
    connect(placement)
    check_shares(experiment, placement.workers.most, torch.device("cuda" if uses_gpu(placement) else "cpu"))


def _mark_ended(uri: str, tracked: str, error: BaseException) -> None:
    """Mark the MLflow run; a server that is gone by now must not hide what ended the run."""
    try:
        finish_run(uri, tracked, "KILLED" if isinstance(error, RunStopped | KeyboardInterrupt) else "FAILED")
    except RunFailed as unmarked:
        error.add_note(str(unmarked))


def _tracked_run(folder: RunFolder, experiment: Experiment, uri: str) -> str:
    """The run's MLflow run: the one it already has, or a new one."""
    if folder.tracking_run is not None:
        reopen_run(uri, folder.tracking_run)
        return folder.tracking_run
    tags = provenance() | {"source.fingerprint": experiment.source.fingerprint, "protocol": experiment.protocol}
    tracked = create_run(uri, experiment.name, folder.name, flatten(experiment.model_dump(mode="json")), tags)
    MlflowTracker(uri, tracked).log_text(experiment.to_json(), "experiment.json")
    record_run(folder, experiment, tracked)
    return tracked


def _train(
    experiment: Experiment,
    options: Options,
    storage: Storage,
    tracker: MlflowTracker,
    display: Listener,
    should_stop: Callable[[], bool],
) -> Result:
    listener, placement = TrackingListener(tracker), options.placement
    if placement.in_process:
        both = Fanout([display, listener])
        return train_in_process(experiment, storage, both, device=placement.device, should_stop=should_stop)
    from metaray.training.trainer import train_on_ray

    display.on_event(entering("workers"))
    return train_on_ray(experiment, storage, placement, display=display, listeners=[listener], should_stop=should_stop)
