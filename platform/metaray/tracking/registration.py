"""After training: the run's files go to MLflow, its learner to the registry, and `@champion` perhaps to it."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from metaray.config import Config
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.experiment.packages import packages_in, packages_of
from metaray.learners.learner import Learner
from metaray.learners.loading import load_learner
from metaray.plots.function_fits import draw_fits, fits_of, has_curve
from metaray.plots.learning_curve import draw_learning_curve
from metaray.records.checked_json import read_record, write_record
from metaray.records.checkpoint import CHECKPOINTS_FOLDER as CHECKPOINTS
from metaray.records.checkpoint import checkpoint_name, saved_steps
from metaray.records.estimate import Values
from metaray.records.journal import read_journal
from metaray.records.result import RESULT, Result
from metaray.records.run_folder import RunFolder
from metaray.tracking.artifact import download
from metaray.tracking.champion import settle
from metaray.tracking.mlflow_tracker import MlflowTracker
from metaray.tracking.new_version import new_version
from metaray.tracking.promotion import Champion, Decision, Wish, decide, insisted
from metaray.tracking.registry import ModelVersion, find_version, list_models
from metaray.training.evaluation import evaluate_learner
from metaray.training.session import LEARNER

REGISTRATION_FILE = "published.json"


class _Record(Config):
    """What `published.json` says: `Published`, and the MLflow run that holds it."""

    tracking_run: str = ""
    version: int | None
    decision: Decision | None


class Published(NamedTuple):
    """What became of a run's learner.

    Attributes:
        version: of the registered model; None if it was not registered.
        decision: whether it became champion, and why.
    """

    version: ModelVersion | None
    decision: Decision | None


def publish(
    experiment: Experiment,
    folder: RunFolder,
    uri: str,
    tracked: str,
    result: Result,
    wish: Wish,
    *,
    say: Callable[[str], None] = lambda text: None,
) -> Published:
    """Log the run's files and register its learner, once: what was done before is looked up, not done again.

    Args:
        experiment: that was trained.
        folder: of the run.
        uri: of MLflow.
        tracked: id of the MLflow run.
        result: of the run.
        wish: what is to become of the learner.
        say: told what takes a while.
    """
    before = _published(experiment, folder, uri, tracked)
    if before is not None and _granted(before, wish):
        return before
    with tempfile.TemporaryDirectory() as scratch:
        learner = folder.storage.download(LEARNER, Path(scratch) / LEARNER)
        if before is None:
            tracker = MlflowTracker(uri, tracked)
            _log_files(experiment, folder, tracker, Path(scratch))
            _log_fit(experiment, learner, tracker, Path(scratch))
        done = Published(None, None)
        if wish.register:
            fingerprint = folder.fingerprint or experiment.source.fingerprint
            done = _register(experiment, uri, tracked, learner, result, fingerprint, promote=wish.promote, say=say)
    record: dict[str, Any] = {
        "tracking_run": tracked,
        "version": None if done.version is None else done.version.version,
        "decision": None if done.decision is None else done.decision._asdict(),
    }
    write_record(folder.storage, REGISTRATION_FILE, record)
    return done


def _granted(before: Published, wish: Wish) -> bool:
    if before.version is None:
        return not wish.register
    return not wish.promote or (before.decision is not None and before.decision.promote)


def _published(experiment: Experiment, folder: RunFolder, uri: str, tracked: str) -> Published | None:
    """What an earlier call did; None if there was none, or only one for another MLflow run, perhaps elsewhere."""
    if not folder.storage.exists(REGISTRATION_FILE):
        return None
    record = read_record(
        folder.storage,
        REGISTRATION_FILE,
        _Record,
        remedy="delete it, and `metaray upload` looks up what was registered",
    )
    if record.tracking_run != tracked:
        return None
    version = None if record.version is None else find_version(uri, experiment.name, record.version)
    return Published(version, record.decision)


def _register(
    experiment: Experiment,
    uri: str,
    tracked: str,
    learner: Path,
    result: Result,
    fingerprint: str,
    *,
    promote: bool,
    say: Callable[[str], None],
) -> Published:
    loaded = load_learner(learner, trust=["*"])
    # A run that was killed after registering, before it wrote that down, has its version already.
    name = experiment.name
    number = _version_of(uri, name, tracked)
    if number is None:
        tags = _tags(experiment, result, fingerprint)
        number = new_version(name, uri, tracked, learner, loaded, tags, experiment=experiment, say=say)
    scores: Values = result.meta_val_scores
    nearest: Values = result.baseline_val_scores
    contest = Contest(experiment, loaded, result.device)
    if not nearest:  # a run of before they were kept, which does not say either on what device it was judged
        contest = contest._replace(device="cpu")
        scores, nearest = (contest.judged(one, "cpu") for one in (loaded, loaded.nearest_neighbor))
    decision = crown_if_better(contest, uri, number, scores, nearest, promote=promote, say=say)
    return Published(find_version(uri, experiment.name, number), decision)


class Contest(NamedTuple):
    """A learner that may become champion, and how it was judged.

    Attributes:
        experiment: whose meta-val episodes count, in its precision; its name is that of the model.
        learner: the challenger.
        device: the kind that its scores were made on, "cpu" or "cuda"; empty if nobody knows.
    """

    experiment: Experiment
    learner: Learner
    device: str

    def judged(self, learner: Learner, device: str) -> Values:
        """Scores of a learner on the meta-val episodes."""
        return evaluate_learner(learner, self.experiment, "meta-val", device=torch.device(device)).score


def crown_if_better(
    contest: Contest,
    uri: str,
    number: int,
    scores: Values,
    nearest: Values,
    *,
    promote: bool,
    say: Callable[[str], None] = lambda text: None,
) -> Decision:
    """Decide whether a version becomes champion, and make it so.

    Args:
        contest: what is decided on.
        uri: of MLflow.
        number: of the version.
        scores: of its learner, by episode.
        nearest: those of the nearest neighbour.
        promote: make it champion whatever the comparison says.
        say: told what takes a while.
    """
    baselines = _baselines(contest.experiment, nearest)

    def judge(present: ModelVersion | None) -> Decision:
        decision = _decide(contest, uri, scores, present, baselines)
        return insisted(decision) if promote else decision

    return settle(uri, contest.experiment.name, number, judge, say=say)


def _version_of(uri: str, name: str, tracked: str) -> int | None:
    versions = [v for model in list_models(uri) if model.name == name for v in model.versions]
    return next((version.version for version in versions if version.run_id == tracked), None)


def _baselines(experiment: Experiment, nearest: Values) -> dict[str, Values]:
    """What a first champion must surpass, on the meta-val episodes."""
    found: dict[str, Values] = {"the nearest neighbour": nearest}
    if experiment.quality == "accuracy":
        found["chance"] = [1 / experiment.eval_spec.ways] * len(nearest)
    return found


def _decide(
    contest: Contest,
    uri: str,
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
                learner = load_learner(download(uri, present.uri, Path(scratch)), trust=sorted(_packages(experiment)))
                against = Champion(version, contest.judged(learner, device))
                if device != contest.device and against.is_finite:  # otherwise the run's own baselines decide
                    scores = contest.judged(contest.learner, device)
            except InputError as error:
                against = Champion(version, None, str(error))
    return decide(scores, against, baselines=baselines, quality=contest.experiment.quality)


def _packages(experiment: Experiment) -> set[str]:
    """The packages whose code the user's own experiment names; the present champion may name no others."""
    preprocessing = type(experiment.source.preprocessing).__module__
    return {"metaray", *packages_of(experiment), *packages_in([preprocessing])}


def _log_files(experiment: Experiment, folder: RunFolder, tracker: MlflowTracker, scratch: Path) -> None:
    curve = scratch / "learning_curve.png"
    draw_learning_curve(read_journal(folder.storage), curve, title=f"{experiment.name}: {experiment.protocol}")
    tracker.log_artifact(curve)
    tracker.log_text(folder.storage.read(RESULT).decode(), RESULT)
    for step in saved_steps(folder.storage):
        name = checkpoint_name(step)
        tracker.log_artifact(folder.storage.download(f"{CHECKPOINTS}/{name}", scratch / name), CHECKPOINTS)


def _log_fit(experiment: Experiment, folder: Path, tracker: MlflowTracker, scratch: Path) -> None:
    """A picture of what adaptation does, where tasks are functions that can be drawn."""
    source, plan = experiment.source, experiment.evaluation
    # Asked first, since it needs no files: a run is uploaded where its data are not.
    if source.target_size is None or not has_curve(source.feature_shape, source.target_size):
        return
    learner = load_learner(folder, trust=["*"])
    picture = scratch / "fit.png"
    title = f"{experiment.name}: meta-test tasks, {experiment.protocol}"
    draw_fits(fits_of(learner, source, experiment.eval_spec, plan.seed), picture, title)
    tracker.log_artifact(picture)


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
