"""One run, composed: experiment -> trainer -> tracker -> registry."""

import json
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from metaray.algorithms.learner import load_learner
from metaray.errors import InputError, RunFailed, RunStopped
from metaray.serving.pyfunc import INPUTS, OUTPUTS, example_input
from metaray.tracking.artifact import download, register
from metaray.tracking.curve import draw_learning_curve
from metaray.tracking.listener import TrackingListener
from metaray.tracking.mlflow_tracker import (
    MlflowTracker,
    create_run,
    finish_run,
    prepare,
    reopen_run,
    tracking_uri,
)
from metaray.tracking.promotion import Decision, decide
from metaray.tracking.provenance import provenance
from metaray.tracking.registry import ModelVersion, champion, find_version, set_alias
from metaray.training.checkpoint import FOLDER as CHECKPOINTS
from metaray.training.checkpoint import checkpoint_name, saved_steps
from metaray.training.device import choose_device
from metaray.training.evaluation import evaluate_learner, paired_difference
from metaray.training.events import Fanout, Listener, entering
from metaray.training.experiment import Experiment
from metaray.training.identity import RunFolder, open_run, record_run
from metaray.training.journal import read_journal
from metaray.training.local import train_in_process
from metaray.training.overrides import flatten
from metaray.training.placement import Placement
from metaray.training.preflight import preflight
from metaray.training.result import RESULT, Result
from metaray.training.session import LEARNER
from metaray.training.storage import Storage

PUBLISHED = "published.json"


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
    # MLflow takes seconds to import, and Ray to start: let them overlap with the checks here.
    with ThreadPoolExecutor(max_workers=1) as pool:
        tracking_ready = pool.submit(prepare, uri)
        preflight(experiment, workers=options.placement.workers)
        root = Storage(options.storage)
        root.check_writable()
        folder = open_run(root, experiment, options.run)
        if folder.result is None:
            _check_place(options.placement, display)
        display.on_event(entering("MLflow"))
        tracking_ready.result()
    tracked = _tracked_run(folder, experiment, uri)
    try:
        result = folder.result or _train(
            experiment, options, folder.storage, MlflowTracker(uri, tracked), display, should_stop
        )
        version, decision = _publish(experiment, options, folder, uri, tracked, result)
    except BaseException as error:
        _mark_ended(uri, tracked, error)
        if isinstance(error, RunStopped):
            raise RunStopped(f"{error}; --run {folder.name} goes on from there") from None
        raise
    finish_run(uri, tracked, "FINISHED")
    return Report(folder.name, tracked, uri, result, version, decision)


def _check_place(placement: Placement, display: Listener) -> None:
    """Find out whether there is room and the device asked for, before anything of the run is written."""
    if placement.workers == 0:
        choose_device(placement.device)
        return
    # Only here, because a run in process needs no Ray at all.
    from metaray.training.trainer import connect

    display.on_event(entering("Ray"))
    connect(placement)


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
    if placement.workers == 0:
        both = Fanout([display, listener])
        return train_in_process(experiment, storage, both, device=placement.device, should_stop=should_stop)
    from metaray.training.trainer import train_on_ray

    display.on_event(entering("workers"))
    return train_on_ray(experiment, storage, placement, display=display, listeners=[listener], should_stop=should_stop)


def _publish(
    experiment: Experiment, options: Options, folder: RunFolder, uri: str, tracked: str, result: Result
) -> tuple[ModelVersion | None, Decision | None]:
    """Log the run's files and register its learner, once: a finished run only looks up what it did then."""
    if folder.storage.exists(PUBLISHED):
        published = json.loads(folder.storage.read(PUBLISHED))
        version, decision = published["version"], published["decision"]
        found = None if version is None else find_version(uri, experiment.name, version)
        return found, None if decision is None else Decision(**decision)
    with tempfile.TemporaryDirectory() as scratch:
        learner = folder.storage.download(LEARNER, Path(scratch) / LEARNER)
        _log_files(experiment, folder, MlflowTracker(uri, tracked), Path(scratch))
        version, decision = None, None
        if options.register:
            decision = _decide(experiment, uri, result)
            version = register(
                uri,
                tracked,
                name=experiment.name,
                learner_folder=learner,
                inputs=INPUTS,
                outputs=OUTPUTS,
                input_example=example_input(load_learner(learner, trust=["*"])),
                tags=_version_tags(experiment, result),
            )
            if decision.promote:
                set_alias(uri, experiment.name, version)
    record = {"version": version, "decision": None if decision is None else decision._asdict()}
    folder.storage.write(PUBLISHED, json.dumps(record).encode())
    return None if version is None else find_version(uri, experiment.name, version), decision


def _log_files(experiment: Experiment, folder: RunFolder, tracker: MlflowTracker, scratch: Path) -> None:
    curve = scratch / "learning_curve.png"
    draw_learning_curve(read_journal(folder.storage), curve, title=f"{experiment.name}: {experiment.protocol}")
    tracker.log_artifact(curve)
    tracker.log_text(folder.storage.read(RESULT).decode(), RESULT)
    for step in saved_steps(folder.storage):
        name = checkpoint_name(step)
        tracker.log_artifact(folder.storage.download(f"{CHECKPOINTS}/{name}", scratch / name), CHECKPOINTS)


def _decide(experiment: Experiment, uri: str, result: Result) -> Decision:
    """Compare with the present champion on the same meta-val episodes."""
    present = champion(uri, experiment.name)
    if present is None:
        return decide(None, None)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            learner = load_learner(download(uri, present.uri, Path(scratch)), trust=sorted(_packages(experiment)))
            scores = evaluate_learner(learner, experiment, "meta-val").score
        except InputError as error:
            return decide(str(present.version), None, str(error))
    return decide(str(present.version), paired_difference(result.meta_val_scores, scores))


def _packages(experiment: Experiment) -> set[str]:
    """The packages whose code the user's own experiment names; the present champion may name no others."""
    paths = [value for key, value in flatten(experiment.model_dump(mode="json")).items() if key == "model.path"]
    paths += [type(part).__module__ for part in (experiment.source, experiment.model, experiment.algorithm)]
    return {path.partition(":")[0].partition(".")[0] for path in paths}


def _version_tags(experiment: Experiment, result: Result) -> dict[str, str]:
    return {
        "algorithm": experiment.algorithm.kind,
        "model": experiment.model.kind,
        "source": experiment.source.kind,
        "source.fingerprint": experiment.source.fingerprint,
        "protocol": result.protocol,
        "meta_val.accuracy": str(result.meta_val),
        "meta_test.accuracy": str(result.meta_test),
        "best_step": str(result.best_step),
    }
