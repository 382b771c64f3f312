"""One run, composed: experiment -> trainer -> tracker -> registry."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch

from metaray.api.checks import check_experiment, check_tracking, writable_storage
from metaray.errors import Diverged, RunFailed, RunStopped, redacted
from metaray.experiment.experiment import Experiment
from metaray.records.checkpoint import saved_steps
from metaray.records.events import Event, Fanout, Listener, entering
from metaray.records.failure import as_failure, forget_failure, write_failure
from metaray.records.result import Result
from metaray.records.run_folder import RunFolder, open_run
from metaray.records.run_log import run_log
from metaray.records.storage import Storage
from metaray.retry import AWAY_WITHIN_S, patience
from metaray.tracking.client import quiet_mlflow
from metaray.tracking.listener import TrackingListener
from metaray.tracking.mlflow_tracker import MlflowTracker, TrackingAway, asking, reopen_run
from metaray.tracking.promotion import Wish
from metaray.tracking.run_upload import Destination, NotUploaded, Report, deliver, mark_ended, open_tracking
from metaray.tracking.server import Unreachable, glance, prepare, tracking_uri
from metaray.training.checks.preflight import check_chunks, check_shares
from metaray.training.device import choose_device
from metaray.training.in_process import train_in_process
from metaray.training.placement import Placement

__all__ = ["NotUploaded", "Options", "Report", "run"]


@dataclass(frozen=True)
class Options:
    """Where and how a run runs; nothing here changes what it computes.

    Attributes:
        placement: workers and samplers; 0 workers train in this process without Ray.
        run: its name; None makes a new one.
        storage: folder or URI of all runs.
        tracking_uri: of MLflow; None takes MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory.
        register: put the best learner into the registry.
        promote: make it champion whatever the comparison on meta-val says.
    """

    placement: Placement = Placement()  # noqa: RUF009 - frozen
    run: str | None = None
    storage: str = "runs"
    tracking_uri: str | None = None
    register: bool = True
    promote: bool = False

    @property
    def wish(self) -> Wish:
        """What is to become of the learner."""
        return Wish(self.register, self.promote)


def run(
    experiment: Experiment, options: Options, display: Listener, *, should_stop: Callable[[], bool] = lambda: False
) -> Report:
    """Train, track, register.

    Raises:
        InputError: before anything starts, if the input is wrong.
        RunFailed: if training failed; the MLflow run is marked so.
        NotUploaded: if it is trained, but MLflow does not take it.
        RunStopped: if `should_stop` said so; the same call with the same `options.run` goes on.
    """
    uri, wish = tracking_uri(options.tracking_uri), options.wish
    root, folder = _checked(experiment, options, uri, display)
    to = Destination(root.root, uri, wish)
    with folder.held(), run_log(folder.storage) as log:
        display = Fanout([display, log])
        # Again, now that nobody else can write to it: another process may have finished it meanwhile.
        folder = open_run(root, experiment, folder.name)
        _note(display, f"run: {folder.name}")
        if folder.tracking_run is not None and not folder.fingerprint:
            _note(display, "it does not say on what data it was begun, so whether these are the same is not known")
        if folder.result is None:
            folder = _trained(experiment, options, folder, to, display, should_stop)

        def tell() -> None:
            _note(display, f"MLflow at {redacted(uri)!r} does not answer; waiting up to {AWAY_WITHIN_S:g} s for it")

        waits = patience(AWAY_WITHIN_S, enough=should_stop, once=tell)
        return deliver(experiment, folder, to, waits=waits, say=lambda text: _note(display, text))


def _checked(experiment: Experiment, options: Options, uri: str, display: Listener) -> tuple[Storage, RunFolder]:
    """Find out all that may be wrong, the cheapest first, before anything of the run is written."""
    display.on_event(entering("checks"))
    # MLflow takes seconds to import: let that overlap with the checks.
    with ThreadPoolExecutor(max_workers=1) as pool:
        imported = pool.submit(quiet_mlflow)
        glance(uri)
        root = writable_storage(options.storage)
        folder = open_run(root, experiment, options.run)
        device = torch.device("cpu")
        if folder.result is None:
            device = _check_request(experiment, options.placement)
        check_experiment(experiment, device, verify=options.placement.verify)
        if folder.result is None and not options.placement.in_process:
            _check_cluster(experiment, options.placement, root, display)
        display.on_event(entering("MLflow"))
        imported.result()
    try:
        check_tracking(uri, experiment.name, needed=folder.tracking_run is None)
    except Unreachable:
        if folder.tracking_run is None:
            raise
    return root, folder


def _likely_device(placement: Placement) -> torch.device:
    """Where a run will compute, as far as that is known before it has joined a cluster."""
    if placement.in_process:
        return choose_device(placement.device)
    return torch.device("cuda" if placement.device == "cuda" else "cpu")


def _check_request(experiment: Experiment, placement: Placement) -> torch.device:
    """Find out what is wrong with the device and the number of workers by themselves; returns the likely device."""
    device = _likely_device(placement)
    if not placement.in_process:
        check_shares(experiment, placement.workers.most, device)
    return device


def _check_cluster(experiment: Experiment, placement: Placement, root: Storage, display: Listener) -> None:
    """Find out whether the cluster has room and the device asked for, and all its nodes the storage."""
    # Only here, because a run in process needs no Ray at all.
    from metaray.distributed.cluster import connect, uses_gpu
    from metaray.distributed.cluster_nodes import check_storage_everywhere, samplers_on

    display.on_event(entering("Ray"))
    connect(placement)
    samplers_on(placement.samplers_on, use_gpu=uses_gpu(placement))
    check_storage_everywhere(root)
    device = torch.device("cuda" if uses_gpu(placement) else "cpu")
    check_shares(experiment, placement.workers.most, device)
    if device != _likely_device(placement):
        check_chunks(experiment, device)


def _trained(
    experiment: Experiment,
    options: Options,
    folder: RunFolder,
    to: Destination,
    display: Listener,
    should_stop: Callable[[], bool],
) -> RunFolder:
    """Train to the end; returns the run with its result."""
    folder, tracker = _tracked(experiment, folder, to.uri, display)
    listener = Fanout([TrackingListener(tracker, display), display])
    try:
        result = _train(experiment, options.placement, folder.storage, listener, should_stop)
        forget_failure(folder.storage)
        return replace(folder, result=result)
    except BaseException as error:  # noqa: BLE001 - raised below
        ended = _ended(as_failure(error), folder)
        if isinstance(ended, RunFailed):
            write_failure(folder.storage, ended)
        stopped = isinstance(error, RunStopped | KeyboardInterrupt)
        mark_ended(to.uri, tracker.run_id, "KILLED" if stopped else "FAILED", ended)
        raise ended from ended.__cause__ or error.__cause__


def _tracked(experiment: Experiment, folder: RunFolder, uri: str, display: Listener) -> tuple[RunFolder, MlflowTracker]:
    """The run's MLflow run. To go on needs no server: the journal is uploaded when the run is done."""
    try:
        prepare(uri)
        opened = open_tracking(folder, experiment, uri)
        assert opened.tracking_run is not None
        with asking(uri):
            reopen_run(uri, opened.tracking_run)
    except (Unreachable, TrackingAway) as away:
        if folder.tracking_run is None:
            raise
        folder = folder.reread()  # before it went away it may have made a new one
        assert folder.tracking_run is not None
        tracker = MlflowTracker(uri, folder.tracking_run, reopen=True)
        tracker.problem = str(away)
        return folder, tracker
    if folder.tracking_run not in (None, opened.tracking_run):
        _note(display, f"MLflow run {folder.tracking_run} is not at {redacted(uri)!r}: a new one holds the whole run")
    return opened, MlflowTracker(uri, opened.tracking_run)


def _train(
    experiment: Experiment,
    placement: Placement,
    storage: Storage,
    listener: Listener,
    should_stop: Callable[[], bool],
) -> Result:
    if placement.in_process:
        return train_in_process(experiment, storage, listener, device=placement.device, should_stop=should_stop)
    from metaray.distributed.trainer import train_on_ray

    listener.on_event(entering("workers"))
    return train_on_ray(experiment, storage, placement, display=listener, should_stop=should_stop)


def _ended(error: BaseException, folder: RunFolder) -> BaseException:
    """What ended the run, and how it can go on."""
    if isinstance(error, RunStopped):
        return RunStopped(f"{error}; --run {folder.name} goes on from there")
    if not isinstance(error, RunFailed) or isinstance(error, Diverged):
        return error
    try:
        saved = saved_steps(folder.storage)
    except OSError:
        saved = []  # it must not hide what ended the run
    if saved:
        text = str(error).rstrip(".")
        text = f"{text}; --run {folder.name} goes on from the newest checkpoint, that of step {saved[-1]}"
        return RunFailed(text, told=error.told, tracebacks=error.tracebacks)
    return error


def _note(display: Listener, text: str) -> None:
    display.on_event(Event("note", 0, {}, time.time(), text))
