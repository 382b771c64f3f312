"""`metaray.train`: one run, from an experiment to a registered learner."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch

from metaray.api.checks import (
    can_be_linked,
    check_cluster,
    check_experiment,
    check_workers,
    likely_device,
    most_in_words,
    writable_storage,
)
from metaray.displays.progress import Progress, shown_run
from metaray.errors import Diverged, InputError, RunFailed, RunStopped
from metaray.experiment.experiment import Experiment
from metaray.records.begun import as_begun
from metaray.records.blobs import check_linkable
from metaray.records.events import Event, Fanout, Listener, entering
from metaray.records.failure import as_failure, forget_failure, write_failure
from metaray.records.run import Run
from metaray.records.run_log import run_log
from metaray.records.storage import Storage
from metaray.retry import AWAY_WITHIN_S, patience
from metaray.tracking.feed import FeedListener, JournalFeed
from metaray.tracking.mlflow_tracker import MlflowTracker, origin_of
from metaray.tracking.promotion import Wish
from metaray.tracking.report import NotUploaded, Report
from metaray.tracking.run_upload import Destination, deliver, finish, mark_ended
from metaray.tracking.tracker import Tracker, trackers_of
from metaray.training.in_process import InProcess
from metaray.training.place import Extent, Place
from metaray.training.placement import Placement, Workers
from metaray.training.profiling import steps_to_profile

__all__ = ["NotUploaded", "Report", "train"]


def train(
    experiment: Experiment,
    *,
    workers: int | str = 0,
    samplers: int = 2,
    cpus_per_worker: float = 1.0,
    device: str = "auto",
    address: str | None = None,
    hang_timeout_s: float = 300.0,
    spread: bool = False,
    samplers_on: str = "any",
    run: str | None = None,
    storage: str = "runs",
    tracker: str | Sequence[str] = "mlflow",
    tracking_uri: str | None = None,
    register: bool | None = None,
    promote: bool = False,
    link_encoder: bool = False,
    verify: bool = False,
    data_on: str = "auto",
    profile: bool | int = False,
    progress: Progress = True,
    should_stop: Callable[[], bool] = lambda: False,
) -> Report:
    """Meta-train an experiment, track it, evaluate it on meta-test, and register its best learner.

    The result depends on the experiment alone: any number of workers, any interruption, and any device of one kind give
    the same bits.

    Example: `metaray.train(experiment, workers=2, run="first")`.

    Args:
        experiment: The experiment to train.
        workers: Number of Ray Train workers: a number, or a range such as "1:4" to follow the cluster's size; 0 trains
            in this process, without Ray.
        samplers: Number of actors that sample episodes ahead.
        cpus_per_worker: Number of CPUs that each worker reserves; below 1 lets several share a core.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        address: Address of a running Ray cluster; None starts a local one, or joins the one named by RAY_ADDRESS.
        hang_timeout_s: Seconds without progress after which a worker is killed and replaced.
        spread: Whether to place workers on as many nodes as possible instead of as few.
        samplers_on: Nodes where sampler actors may run: "any" node, nodes without GPUs ("cpu"), or nodes where workers
            can run ("workers").
        run: Name of the run. An unfinished run of this name is resumed, and the report of a finished one is returned.
            None makes a new name.
        storage: Folder or URI that holds the folders of all runs.
        tracker: Where the run is tracked: "mlflow", "tensorboard", "none", the import path of a tracker of the user's
            own, or a sequence of several.
        tracking_uri: URI of MLflow; None takes MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory.
        register: Whether to register the best learner; None registers it if MLflow is a tracker.
        promote: Whether to make the learner @champion whatever the comparison on meta-val says.
        link_encoder: Whether to keep the learner's frozen encoder in the storage, once for all versions that share it,
            instead of in each version.
        verify: Whether to read all data and compare them with their fingerprint even if that was done before.
        data_on: Where examples are kept while a worker trains: on its "device", on the "host", or "auto", which takes a
            GPU if the examples are rows of a store and fit.
        profile: Number of outer steps, after a warm-up, to profile; a table and a trace are written to the run's
            folder. True takes a few steps.
        progress: Whether to show progress; or a listener to the run's events, or a function that makes one.
        should_stop: Function that is called at each outer step; if it returns true, the run stops after a checkpoint.

    Returns:
        How the run ended: its result, and the registered version. It prints as the command line does.

    Raises:
        InputError: If the input is invalid; nothing has started then.
        RunFailed: If training failed; the run's record says why.
        NotUploaded: If training finished, but a tracker did not accept the results.
        RunStopped: If `should_stop` returned true; the same call with the name of the run resumes it.
    """
    count = Workers.parse(str(workers))
    placement = Placement(
        count, samplers, cpus_per_worker, device, address, hang_timeout_s, spread, samplers_on, verify, data_on
    )
    trackers = trackers_of([tracker] if isinstance(tracker, str) else tracker, tracking_uri)
    wish = wish_of(register, promote, trackers, link=link_encoder)
    if link_encoder:
        check_linkable(can_be_linked(experiment))
    with shown_run(progress, experiment) as display:
        root, found, most = _checked(experiment, run, storage, trackers, placement, display, profile)
        with found.held(), run_log(found.storage) as log:
            display = Fanout([display, log])
            if found.is_begun:
                # Again, now that nobody else can write to it: another process may have finished it meanwhile.
                found.require(experiment)
            _note(display, f"run: {found.name}{most}")
            if found.is_begun and not found.record.source_fingerprint:
                _note(display, "it does not say on what data it was begun, so whether these are the same is not known")
            fresh = not found.is_finished
            if fresh:
                with _recorded(experiment, found, trackers, display) as listener:
                    place = _place(placement, listener)
                    extent = Extent(should_stop=should_stop, profile=steps_to_profile(profile, found, experiment))
                    place.train(experiment, found.storage, listener, extent)
            mlflow = [tracker for tracker in trackers if isinstance(tracker, MlflowTracker)]
            others = [tracker for tracker in trackers if not isinstance(tracker, MlflowTracker)]
            for other in [] if fresh else others:
                other.begin(experiment, found, lambda text: _note(display, text))
            to = Destination(root.root, mlflow[0].server, wish) if mlflow else None
            return _brought(experiment, found, to, others, display, should_stop)


def wish_of(register: bool | None, promote: bool, trackers: Sequence[Tracker], *, link: bool = False) -> Wish:
    """What is to be done with the learner after training: registration, promotion, and a linked encoder.

    Args:
        register: Whether to register the learner; None registers it if MLflow is a tracker.
        promote: Whether to make it @champion.
        trackers: Trackers of the run.
        link: Whether to keep the learner's encoder in the storage.

    Raises:
        InputError: If the learner is to be registered, but MLflow, which holds the registry, is not a tracker.
    """
    possible = any(isinstance(tracker, MlflowTracker) for tracker in trackers)
    if (register or promote or link) and not possible:
        raise InputError(
            "the registry is MLflow's, which is not among the trackers: add --tracker mlflow, or register the learner "
            "later with `metaray upload RUN`"
        )
    return Wish(possible if register is None else register, promote, link)


def _checked(
    experiment: Experiment,
    name: str | None,
    storage: str,
    trackers: Sequence[Tracker],
    placement: Placement,
    display: Listener,
    profile: bool | int,
) -> tuple[Storage, Run, str]:
    """Find out all that may be wrong, the cheapest first, before anything of the run is written.

    Returns:
        The storage of all runs, this one, and how many workers it can ever use, in words to put after its name.
    """
    display.on_event(entering("checks"))
    root = writable_storage(storage)
    run = Run.of(root, experiment, name)
    asked = [tracker for tracker in trackers if not tracker.is_sure(experiment, run)]
    # MLflow takes seconds to import: let that overlap with the checks.
    with ThreadPoolExecutor() as pool:
        loaded: list[Future[Any]] = [pool.submit(tracker.load) for tracker in asked]
        steps_to_profile(profile, run, experiment)
        device, begun = torch.device("cpu"), experiment
        on_ray = not run.is_finished and not placement.in_process
        if not run.is_finished:
            device = likely_device(placement)
            begun = as_begun(experiment, run.storage, device.type)
            check_workers(begun, placement, device)
        for doubt in check_experiment(begun, device, verify=placement.verify):
            _note(display, doubt)
        if on_ray:
            loaded.append(pool.submit(import_module, "metaray.distributed.trainer"))  # while Ray is starting
            device = check_cluster(experiment, placement, root, run, display)
        if asked:
            display.on_event(entering(" and ".join(tracker.title for tracker in asked)))
        for future in loaded:
            future.result()
    for tracker in asked:
        tracker.check(experiment, run)
    return root, run, "" if run.is_finished else most_in_words(as_begun(experiment, run.storage, device.type), device)


def _place(placement: Placement, listener: Listener) -> Place:
    if placement.in_process:
        return InProcess(placement.device, placement.data_on)
    from metaray.distributed.trainer import OnRay

    listener.on_event(entering("workers"))
    return OnRay(placement)


@contextmanager
def _recorded(experiment: Experiment, run: Run, trackers: Sequence[Tracker], display: Listener) -> Iterator[Listener]:
    """Within the block, what the run says reaches its trackers; its end by an error is written down everywhere."""
    _begin(experiment, run, trackers, display)
    feeds = [FeedListener(JournalFeed(run, tracker), display) for tracker in trackers]
    try:
        yield Fanout([*feeds, display])
    except BaseException as error:  # noqa: BLE001 - raised below
        ended = _ended(as_failure(error), run)
        if isinstance(ended, RunFailed):
            write_failure(run.storage, ended)
        mark_ended(trackers, "stopped" if isinstance(error, RunStopped | KeyboardInterrupt) else "failed", ended)
        raise ended from ended.__cause__ or error.__cause__
    finally:
        for tracker in trackers:
            tracker.leave()
    forget_failure(run.storage)


def _begin(experiment: Experiment, run: Run, trackers: Sequence[Tracker], display: Listener) -> None:
    """Open the run's records; where one of them cannot be, those that are open are closed as failed."""
    begun: list[Tracker] = []
    try:
        for tracker in trackers:
            tracker.begin(experiment, run, lambda text: _note(display, text))
            begun.append(tracker)
        run.begin(experiment, tags=run.record.tags if run.is_begun else origin_of(experiment))
    except Exception as error:
        mark_ended(begun, "failed", error)
        raise


def _ended(error: BaseException, run: Run) -> BaseException:
    """What ended the run, and how it can go on."""
    if isinstance(error, RunStopped):
        return RunStopped(f"{error}; --run {run.name} goes on from there")
    if not isinstance(error, RunFailed) or isinstance(error, Diverged):
        return error
    try:
        saved = run.saved_steps
    except OSError:
        saved = []  # it must not hide what ended the run
    if saved:
        text = str(error).rstrip(".")
        text = f"{text}; --run {run.name} goes on from the newest checkpoint, that of step {saved[-1]}"
        return RunFailed(text, told=error.told, tracebacks=error.tracebacks)
    return error


def _brought(
    experiment: Experiment,
    run: Run,
    to: Destination | None,
    others: Sequence[Tracker],
    display: Listener,
    should_stop: Callable[[], bool],
) -> Report:
    """The finished run, brought to all its trackers, and its learner to the registry."""
    problems: list[NotUploaded] = []
    for tracker in others:
        try:
            finish(experiment, run, tracker)
        except NotUploaded as problem:  # the others get theirs all the same
            problems.append(problem)
    report = Report(run, run.result, notes=run.notes())
    if to is not None:
        shown = to.server.shown

        def tell() -> None:
            _note(display, f"MLflow at {shown!r} does not answer; waiting up to {AWAY_WITHIN_S:g} s for it")

        waits = patience(AWAY_WITHIN_S, enough=should_stop, once=tell)
        report = deliver(experiment, run, to, waits=waits, say=lambda text: _note(display, text))
    if problems:
        raise NotUploaded("; ".join(map(str, problems)), report) from problems[0]
    return report


def _note(display: Listener, text: str) -> None:
    display.on_event(Event("note", 0, {}, time.time(), text))
