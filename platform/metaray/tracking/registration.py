"""What follows training: the run's files go to MLflow, its learner to the registry, and `@champion` perhaps to it."""

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from metaray.config import Config
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.experiment.packages import packages_in, packages_of
from metaray.imports import paths_in
from metaray.learners.learner import Learner
from metaray.learners.loading import load_learner
from metaray.records.blobs import linked
from metaray.records.checked_json import read_record, write_record
from metaray.records.checkpoint_files import CHECKPOINTS_FOLDER as CHECKPOINTS
from metaray.records.checkpoint_files import checkpoint_name
from metaray.records.estimate import Values
from metaray.records.journal import Metric
from metaray.records.result import Result
from metaray.records.run import LEARNER, Run
from metaray.records.storage import Storage
from metaray.tasks.baselines import title_of
from metaray.tracking.artifact import download
from metaray.tracking.champion import settle
from metaray.tracking.mlflow_run import MlflowRun
from metaray.tracking.mlflow_tracker import MlflowTracker
from metaray.tracking.new_version import new_version
from metaray.tracking.promotion import Champion, Decision, Wish, decide, insisted
from metaray.tracking.registry import ModelVersion, find_version, list_models
from metaray.tracking.run_files import log_files
from metaray.tracking.server import MlflowServer
from metaray.tracking.story import NOTE, judged, run_note
from metaray.training.evaluation import evaluate_learner
from metaray.training.rivals import judged_untrained, untrained_of
from metaray.tuning.overview import storage_of_all

REGISTRATION_FILE = "published.json"


class _Record(Config):
    """What `published.json` says: `Published`, and the MLflow run that holds it."""

    tracking_run: str = ""
    version: int | None
    decision: Decision | None


class Published(NamedTuple):
    """The outcome of publishing a run's learner.

    Attributes:
        version: Registered version; None if the learner was not registered.
        decision: Whether the version became @champion, and why.
    """

    version: ModelVersion | None
    decision: Decision | None


def publish(
    experiment: Experiment,
    run: Run,
    tracker: MlflowTracker,
    wish: Wish,
    *,
    storage: str = "",
    say: Callable[[str], None] = lambda text: None,
) -> Published:
    """Log the run's files and register its learner; what was done before is looked up, not repeated.

    Args:
        experiment: Experiment that was trained.
        run: The finished run.
        tracker: Tracker of the run.
        wish: What is to be done with the learner.
        storage: Folder or URI of all runs, or of the search whose trial it is, which keeps linked encoders.
        say: Function that is called with messages about what takes a while.
    """
    server, tracked = tracker.server, tracker.mlflow_run.id
    before = _published(experiment, run, server, tracked)
    if before is not None and _granted(before, wish):
        return before
    with tempfile.TemporaryDirectory() as scratch:
        learner = run.storage.download(LEARNER, Path(scratch) / LEARNER)
        if before is None:
            log_files(experiment, run, tracker)
            _log_checkpoints(run, tracker, Path(scratch))
            note = run_note(experiment, run.result, tracker.mlflow_run, run.record.tags.get("command", ""))
            tracker.mlflow_run.set_tags({NOTE: note})
            if not any(metric.key.startswith("test/") for metric in run.metrics):  # of before the journal had them
                tracker.mlflow_run.log_metrics(_summary(run.result))
        done = Published(None, None)
        if wish.register:
            if wish.link:
                learner = _linked(learner, storage_of_all(Storage(storage)), Path(scratch) / "linked")
            done = _register(experiment, run, tracker.mlflow_run, learner, promote=wish.promote, say=say)
    record: dict[str, Any] = {
        "tracking_run": tracked,
        "version": None if done.version is None else done.version.version,
        "decision": None if done.decision is None else done.decision._asdict(),
    }
    write_record(run.storage, REGISTRATION_FILE, record)
    return done


def _linked(learner: Path, root: Storage, folder: Path) -> Path:
    """A learner's folder without its encoder, which lies in the storage then."""
    linked(load_learner(learner, trust=["*"]), root).save(folder)
    return folder


def _granted(before: Published, wish: Wish) -> bool:
    if before.version is None:
        return not wish.register
    return not wish.promote or (before.decision is not None and before.decision.promote)


def _published(experiment: Experiment, run: Run, server: MlflowServer, tracked: str) -> Published | None:
    """What an earlier call did; None if there was none, or only one for another MLflow run, perhaps elsewhere."""
    if not run.storage.exists(REGISTRATION_FILE):
        return None
    record = read_record(
        run.storage,
        REGISTRATION_FILE,
        _Record,
        remedy="delete it, and `metaray upload` looks up what was registered",
    )
    if record.tracking_run != tracked:
        return None
    version = None if record.version is None else find_version(server, experiment.name, record.version)
    return Published(version, record.decision)


def _register(
    experiment: Experiment,
    run: Run,
    tracked: MlflowRun,
    learner: Path,
    *,
    promote: bool,
    say: Callable[[str], None],
) -> Published:
    server, result = tracked.server, run.result
    loaded = load_learner(learner, trust=["*"])
    # A run that was killed after registering, before it wrote that down, has its version already.
    name = experiment.name
    number = _version_of(server, name, tracked.id)
    if number is None:
        tags = _tags(experiment, result, run.record.source_fingerprint or experiment.source.fingerprint)
        number = new_version(
            name, tracked, learner, loaded, tags, experiment=experiment, judged=judged(result), say=say
        )
    scores: Values = result.meta_val_scores
    rivals: dict[str, Values] = {baseline: rival.val_scores for baseline, rival in result.baselines.items()}
    contest = Contest(experiment, loaded, result.device)
    if not all(map(len, rivals.values())):
        # Of before they were kept, and perhaps of before results said on what device they were judged.
        contest = contest._replace(device="cpu")
        scores = contest.judged(loaded, "cpu")
        rivals = {baseline: contest.judged_rival(baseline, loaded) for baseline in rivals}
    decision = crown_if_better(contest, server, number, scores, rivals, promote=promote, say=say)
    return Published(find_version(server, experiment.name, number), decision)


class Contest(NamedTuple):
    """A challenger that may become @champion, and how it was evaluated.

    Attributes:
        experiment: Experiment whose meta-val episodes and precision are used; its name is that of the model.
        learner: The challenger.
        device: Type of device of the challenger's scores, "cpu" or "cuda"; empty if unknown.
    """

    experiment: Experiment
    learner: Learner
    device: str

    def judged(self, learner: Learner, device: str) -> Values:
        """Scores of a learner on the meta-val episodes."""
        return evaluate_learner(learner, self.experiment, "meta-val", device=torch.device(device)).score

    def judged_rival(self, name: str, learner: Learner) -> Values:
        """Scores of a baseline beside a learner, on the CPU."""
        rival = untrained_of(name, learner, self.experiment)
        return judged_untrained(rival, self.experiment, "meta-val", device=torch.device("cpu")).score


def crown_if_better(
    contest: Contest,
    server: MlflowServer,
    number: int,
    scores: Values,
    rivals: Mapping[str, Values],
    *,
    promote: bool,
    say: Callable[[str], None] = lambda text: None,
) -> Decision:
    """Decide whether a version becomes @champion, and promote it if so.

    Args:
        contest: The challenger and its evaluation.
        server: MLflow server with the registry.
        number: Number of the challenger's version.
        scores: Score of the challenger in each episode.
        rivals: Scores of each baseline by episode, by name.
        promote: Whether to promote it whatever the comparison says.
        say: Function that is told what takes a while.
    """
    baselines = _baselines(contest.experiment, rivals, len(scores))

    def judge(present: ModelVersion | None) -> Decision:
        decision = _decide(contest, server, scores, present, baselines)
        return insisted(decision) if promote else decision

    return settle(server, contest.experiment.name, number, judge, say=say)


def _version_of(server: MlflowServer, name: str, tracked: str) -> int | None:
    versions = [v for model in list_models(server) if model.name == name for v in model.versions]
    return next((version.version for version in versions if version.run_id == tracked), None)


def _baselines(experiment: Experiment, rivals: Mapping[str, Values], episodes: int) -> dict[str, Values]:
    """What a first champion must surpass, on the meta-val episodes."""
    found = {f"the {title_of(name)}": values for name, values in rivals.items()}
    classes = None
    with suppress(InputError):  # the data may be elsewhere by now
        classes = experiment.source.num_classes("meta-val")
    chance = experiment.source.task.chance(experiment.eval_spec.chance(classes))
    if chance is not None:
        found["chance"] = [chance] * episodes
    return found


def _decide(
    contest: Contest,
    server: MlflowServer,
    scores: Values,
    present: ModelVersion | None,
    baselines: dict[str, Values],
) -> Decision:
    """Compare with the present champion on the same meta-val episodes, both judged on one kind of device.

    That of the run, if it is here; else both are judged here on the CPU. So they are if an old result does not say what
    it was judged on, which may have been a GPU: it costs the scores of one learner, once.
    """
    against = None
    if present is not None:
        version, experiment = str(present.version), contest.experiment
        device = "cuda" if contest.device == "cuda" and torch.cuda.is_available() else "cpu"
        with tempfile.TemporaryDirectory() as scratch:
            try:
                files = download(server, present.uri, Path(scratch))
                learner = load_learner(files, trust=sorted(_packages(experiment)))
                against = Champion(version, contest.judged(learner, device))
                if device != contest.device and against.is_finite:  # otherwise the run's own baselines decide
                    scores = contest.judged(contest.learner, device)
            except InputError as error:
                against = Champion(version, None, str(error))
    return decide(scores, against, baselines=baselines, quality=contest.experiment.quality)


def _packages(experiment: Experiment) -> set[str]:
    """The packages whose code the user's own experiment names; the present champion may name no others."""
    preprocessing = experiment.source.preprocessing
    paths = [type(preprocessing).__module__, *paths_in(preprocessing.model_dump(mode="json"))]
    return {"metaray", *packages_of(experiment), *packages_in(paths)}


def _summary(result: Result) -> list[Metric]:
    now_ms = time.time_ns() // 1_000_000
    return [Metric(key, value, result.num_steps, now_ms) for key, value in result.metrics.items()]


def _log_checkpoints(run: Run, tracker: MlflowTracker, scratch: Path) -> None:
    for step in run.saved_steps:
        name = checkpoint_name(step)
        tracker.log_file(run.storage.download(f"{CHECKPOINTS}/{name}", scratch / name), CHECKPOINTS)


def _tags(experiment: Experiment, result: Result, fingerprint: str) -> dict[str, str]:
    return {
        "algorithm": experiment.algorithm.kind,
        "model": experiment.model.kind,
        "source": experiment.source.kind,
        "source.fingerprint": fingerprint,
        "protocol": result.protocol,
        f"meta_val.{result.quality}": str(result.meta_val),
        f"meta_test.{result.quality}": str(result.meta_test),
        "best_step": str(result.best_step),
    }
