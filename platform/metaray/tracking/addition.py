"""A learner that no run of metaray trained, into the registry: judged on a source like any other, or on nothing."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from metaray.config import check_name
from metaray.data.draws import Split
from metaray.data.source import Source
from metaray.experiment.experiment import Evaluation, Experiment, protocol_of
from metaray.experiment.overrides import flatten
from metaray.learners.learner import Learner
from metaray.records.blobs import linked
from metaray.records.estimate import Estimate, Values
from metaray.records.journal import Metric
from metaray.records.over_groups import GroupEstimate
from metaray.records.provenance import provenance
from metaray.records.result import Rival, rivals_told, scores_told
from metaray.records.storage import Storage
from metaray.tasks.baselines import NEAREST, title_of
from metaray.tracking.champion import crown_by_hand
from metaray.tracking.mlflow_run import MlflowRun
from metaray.tracking.new_version import new_version
from metaray.tracking.promotion import Decision
from metaray.tracking.registration import Contest, crown_if_better
from metaray.tracking.registry import ModelVersion, find_version
from metaray.tracking.server import MlflowServer
from metaray.training.evaluation import CPU, evaluate_learner, judge_of, judging_context, require_same_preparation
from metaray.training.evaluation import Scores as EpisodeScores
from metaray.training.reports import further_of, over_groups_of, rival_of
from metaray.training.rivals import judged_untrained, rivals_beside, untrained_of

Progress = Callable[[str, int, int], None]

UNJUDGED = (
    "there is no source to judge it on, so it has no alias: register it with a source (--source STORE_OR_RECIPE), or "
    "`metaray registry promote {name} {version}` gives it the alias all the same"
)


@dataclass(frozen=True)
class Scores:
    """The scores of a learner on a source.

    Attributes:
        meta_val: Mean score on meta-val.
        meta_test: Mean score on meta-test.
        before_adaptation: Mean score on meta-test with zero inner steps; None if the algorithm takes no inner steps.
        baselines: Scores of untrained baselines on the same episodes, by name.
        compared: What the nearest neighbour compares of two inputs, in words; None without that baseline.
        val_scores: Score of each meta-val episode.
        further: Scores on meta-test that are reported beside the deciding one, by name.
        over_groups: Mean and interval of each score on meta-test over groups, by name; empty if tasks do not belong to
            groups.
    """

    meta_val: Estimate
    meta_test: Estimate
    before_adaptation: Estimate | None
    baselines: dict[str, Rival]
    compared: str | None
    val_scores: Values
    further: dict[str, Estimate]
    over_groups: dict[str, GroupEstimate]

    @property
    def nearest_neighbor(self) -> Estimate | None:
        """The score of the nearest neighbour on meta-test; None where inputs are not compared."""
        return self.baselines[NEAREST].score if NEAREST in self.baselines else None

    @property
    def rivals(self) -> list[tuple[str, str]]:
        """Description and score of each baseline, in words."""
        return rivals_told(self.baselines, self.compared)

    @property
    def beside(self) -> list[tuple[str, str]]:
        """Description and value of the scores beside the deciding one, in words."""
        return scores_told("meta-test", self.further, self.over_groups)


@dataclass(frozen=True)
class Addition:
    """A learner that was added to the registry.

    Attributes:
        version: Registered version of the learner.
        decision: Whether the version became @champion, and why.
        protocol: Evaluation protocol in words: how the scores are to be read.
        quality: Name of the score, one of `metaray.tasks.score.SCORES`.
        scores: Scores of the learner; None if no source was given to evaluate on.
        tracked: MLflow run that holds the learner.
    """

    version: ModelVersion
    decision: Decision
    protocol: str
    quality: str
    scores: Scores | None
    tracked: MlflowRun

    def __str__(self) -> str:
        champion = " (@champion)" if "champion" in self.version.aliases else ""
        lines = [f"protocol: {self.protocol}"]
        if (scores := self.scores) is not None:
            lines.append(f"meta-val {self.quality}: {scores.meta_val}")
            lines += [f"{name}: {told}" for name, told in scores.rivals]
            if scores.before_adaptation is not None:
                lines.append(f"meta-test {self.quality} before adaptation: {scores.before_adaptation}")
            lines += [f"{name}: {told}" for name, told in scores.beside]
            lines.append(f"meta-test {self.quality}: {scores.meta_test}")
        lines.append(f"registered: {self.version.uri}{champion}")
        lines.append(f"champion: {'yes' if self.decision.promote else 'no'}, {self.decision.reason}")
        return "\n".join(lines)


def add_learner(
    learner: Learner,
    name: str,
    *,
    source: Source | Experiment | None = None,
    promote: bool = False,
    link_encoder: str | None = None,
    tracking: str | None = None,
    progress: Progress = lambda what, done, episodes: None,
) -> Addition:
    """Register a learner as the next version of a model; with a source, decide whether it becomes champion.

    Args:
        learner: The learner, wherever it was trained.
        name: Name of the registered model, and of the MLflow experiment that holds its run.
        source: Source to evaluate on, with the learner's own ways, shots, queries and inner steps; or an experiment,
            whose source, numbers of episodes and seed are used. None evaluates nothing.
        promote: Whether to make it @champion whatever the comparison on meta-val says.
        link_encoder: Storage that keeps the frozen encoder, once for all versions; None stores it in the version.
        tracking: URI of MLflow; None takes MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory.
        progress: Function that is called with what is evaluated, and with the numbers of finished and of all episodes.

    Raises:
        InputError: If the learner cannot be rebuilt from its files alone, or the source yields no such tasks or
            prepares its inputs in another way; nothing is written then.
    """
    check_name(name, "name of the model")
    experiment = None if source is None else _judging(learner, name, source)
    if experiment is not None and "experiment" not in learner.provenance:
        learner = replace(learner, provenance=learner.provenance | _judged_on(experiment))
    with tempfile.TemporaryDirectory() as scratch:
        if link_encoder is not None:
            learner = linked(learner, Storage(link_encoder))
        folder = Path(scratch) / "learner"
        learner.save(folder)  # first of all: it refuses what can't be rebuilt
        server = MlflowServer.of(tracking)
        server.prepare()
        scores = None if experiment is None else _scores(learner, experiment, progress)
        with server.asking():
            run = _run(learner, name, server, experiment, scores)
            tags = _tags(learner, experiment, scores)
            try:
                number = new_version(name, run, folder, learner, tags, experiment=experiment, judged=_judged(scores))
                contest = None if experiment is None else Contest(experiment, learner, "cpu")
                decision = _decided(name, server, number, contest, scores, promote=promote)
            except BaseException:
                run.finish("FAILED")
                raise
            run.finish()
            version = find_version(server, name, number)
    quality = learner.task.score.name if experiment is None else experiment.quality
    return Addition(version, decision, tags["protocol"], quality, scores, run)


def _judging(learner: Learner, name: str, source: Source | Experiment) -> Experiment:
    """An experiment that says on what the learner is judged, and how.

    Raises:
        InputError: If that can't be.
    """
    plan = source.evaluation if isinstance(source, Experiment) else Evaluation(every=0)
    source = source.source if isinstance(source, Experiment) else source
    plan = Evaluation.parse(
        {**dict(plan), "episodes": None, "inner_steps": learner.inner_steps}, where=f"evaluation of {name}"
    )
    described = {"name": name, "source": source, "episodes": learner.spec, "model": learner.model, "seed": learner.seed}
    experiment = Experiment.parse(
        {**described, "algorithm": learner.algorithm, "num_steps": learner.step, "evaluation": plan},
        where=f"judging {name}",
    )
    judging_context(learner, experiment)
    require_same_preparation(learner, source)
    spec = learner.spec
    splits: tuple[Split, ...] = ("meta-val", "meta-test")
    for split in splits:
        source.check(split, spec)
    return experiment


def _judged_on(experiment: Experiment) -> dict[str, object]:
    """What `metaray evaluate` goes by; no experiment of metaray's trained it, and it says so."""
    return {
        "experiment": experiment.model_dump(mode="json"),
        "source_fingerprint": experiment.source.fingerprint,
        "protocol": experiment.protocol,
        "trained_elsewhere": True,
    }


def _scores(learner: Learner, experiment: Experiment, progress: Progress) -> Scores:
    """Judge the learner and its baselines on meta-val and meta-test."""

    def judged(one: Learner, split: Split, what: str = "", inner_steps: int | None = None) -> EpisodeScores:
        episodes = judge_of(experiment, split).episodes
        tell = lambda done: progress(f"{split}{what}", done, episodes)  # noqa: E731
        return evaluate_learner(one, experiment, split, inner_steps=inner_steps, progress=tell)

    source = experiment.source
    val, test = judged(learner, "meta-val"), judged(learner, "meta-test")
    unadapted = judged(learner, "meta-test", " before adaptation", 0) if learner.algorithm.gradient_steps else None

    def rival(name: str) -> Rival:
        one = untrained_of(name, learner, experiment)

        def of(split: Split) -> EpisodeScores:
            episodes = judge_of(experiment, split).episodes
            tell = lambda done: progress(f"{split} by {title_of(name)}", done, episodes)  # noqa: E731
            return judged_untrained(one, experiment, split, device=CPU, progress=tell)

        return rival_of(source, test, of("meta-test"), of("meta-val"))

    return Scores(
        meta_val=val.estimate,
        meta_test=test.estimate,
        before_adaptation=unadapted.estimate if unadapted else None,
        baselines={name: rival(name) for name in rivals_beside(learner, experiment)},
        compared=learner.preprocessing.compared,
        val_scores=val.score,
        further=further_of(source.task, test),
        over_groups=over_groups_of(source, test),
    )


def _run(
    learner: Learner, name: str, server: MlflowServer, experiment: Experiment | None, scores: Scores | None
) -> MlflowRun:
    """The MLflow run that holds what is known of the learner."""
    tags = provenance() | {"origin": "trained elsewhere", "protocol": _protocol(learner, experiment)}
    if experiment is None:
        parts = {"algorithm": learner.algorithm, "model": learner.model, "episodes": learner.spec}
        params = flatten(
            {key: {"kind": getattr(part, "kind", "")} | part.model_dump(mode="json") for key, part in parts.items()}
        )
    else:
        params = flatten(experiment.model_dump(mode="json"))
    run = MlflowRun.create(server, name, f"added-{time.strftime('%Y%m%d-%H%M%S')}", params, tags)
    if experiment is not None and scores is not None:
        found = {f"val/{experiment.quality}": scores.meta_val, f"test/{experiment.quality}": scores.meta_test}
        found |= {f"test/{key}": score for key, score in scores.further.items()}
        now_ms = time.time_ns() // 1_000_000
        run.log_metrics([Metric(key, score.mean, learner.step, now_ms) for key, score in found.items()])
        run.log_text(experiment.to_json(), "experiment.json")
    return run


def _judged(scores: Scores | None) -> list[str]:
    """Lines on how it was judged, for people who look at the version."""
    if scores is None:
        return []
    lines = [f"- meta-test: **{scores.meta_test}**; meta-val: {scores.meta_val}; trained elsewhere"]
    if scores.before_adaptation is not None:
        lines.append(f"- before adaptation: {scores.before_adaptation}")
    lines += [f"- {name}: {told}" for name, told in scores.beside]
    return lines + [f"- {name}, which needs no training: {told}" for name, told in scores.rivals]


def _protocol(learner: Learner, experiment: Experiment | None) -> str:
    """How its scores are to be read: the source says, too, which classes meet in a task."""
    source = None if experiment is None else experiment.source
    return protocol_of(learner.spec, learner.algorithm, learner.inner_steps, source)


def _tags(learner: Learner, experiment: Experiment | None, scores: Scores | None) -> dict[str, str]:
    tags = {
        "algorithm": learner.algorithm.kind,
        "model": learner.model.kind,
        "protocol": _protocol(learner, experiment),
    }
    tags["origin"] = "trained elsewhere"
    if experiment is None or scores is None:
        return tags
    return tags | {
        "source": experiment.source.kind,
        "source.fingerprint": experiment.source.fingerprint,
        f"meta_val.{experiment.quality}": str(scores.meta_val),
        f"meta_test.{experiment.quality}": str(scores.meta_test),
    }


def _decided(
    name: str, server: MlflowServer, number: int, contest: Contest | None, scores: Scores | None, *, promote: bool
) -> Decision:
    if contest is not None and scores is not None:
        rivals = {key: rival.val_scores for key, rival in scores.baselines.items()}
        return crown_if_better(contest, server, number, scores.val_scores, rivals, promote=promote)
    if not promote:
        return Decision(False, UNJUDGED.format(name=name, version=number))
    crown_by_hand(server, name, number)
    return Decision(True, "--promote said so, although there was no source to judge it on")
