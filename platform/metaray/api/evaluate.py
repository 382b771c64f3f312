"""Judging a learner from the registry: on its own source and protocol, or on others."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import metaray
from metaray.api.judging import judging
from metaray.config import replace
from metaray.data.draws import Split
from metaray.displays.progress import JudgingProgress, shown_judging
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError, unknown
from metaray.experiment.experiment import Experiment, protocol_of
from metaray.experiment.overrides import override
from metaray.learners.learner import Learner
from metaray.records.estimate import Estimate
from metaray.records.judged import Judged
from metaray.records.over_groups import GroupEstimate
from metaray.records.result import Rival, in_short, plain, rivals_told, scores_told
from metaray.tasks.baselines import NEAREST, title_of
from metaray.training.evaluation import Scores
from metaray.training.placement import Placement, Workers
from metaray.training.reports import further_of, judged_of, over_groups_of, rival_of
from metaray.training.rivals import rivals_beside

SPLITS: dict[str, Split] = {"meta-val": "meta-val", "meta-test": "meta-test"}
Count = int | tuple[int, int] | str
"""A number of ways, shots or queries, as in `EpisodeSpec`."""
TAKEN = ("source", "episodes", "evaluation", "precision", "chunk_size", "threads_per_worker")
"""Fields of an experiment that decide how a learner is evaluated; all others are part of the learner."""


@dataclass(frozen=True)
class ModelScore:
    """The result of an evaluation. It prints as the command line shows it.

    Attributes:
        model: Name of the learner, as it was given.
        split: Split whose episodes were used: "meta-val" or "meta-test".
        protocol: Evaluation protocol in words: how the scores are to be read.
        quality: Name of the score, one of `metaray.tasks.score.SCORES`.
        score: Mean score after adaptation, with its 95% interval.
        before_adaptation: Mean score with zero inner steps; None if the algorithm takes no inner steps.
        baselines: Scores of untrained baselines on the same episodes, by name.
        compared: What the nearest neighbour compares of two inputs, in words; None without that baseline.
        further: Scores that are reported beside the deciding one, by name.
        over_groups: Mean and interval of each score over groups, by name; empty if tasks do not belong to groups.
        judged: Scores of the single episodes: by size and by group, and as a table.
    """

    model: str
    split: str
    protocol: str
    quality: str
    score: Estimate
    before_adaptation: Estimate | None
    baselines: dict[str, Rival]
    compared: str | None
    further: dict[str, Estimate]
    over_groups: dict[str, GroupEstimate]
    judged: Judged = field(repr=False)

    @property
    def nearest_neighbor(self) -> Estimate | None:
        """Score of the nearest neighbour; None if inputs are not compared."""
        return self.baselines[NEAREST].score if NEAREST in self.baselines else None

    def tree(self) -> dict[str, Any]:
        """The result in JSON types, as `metaray evaluate --json` prints it."""
        tree: dict[str, Any] = {"model": self.model, "split": self.split, "protocol": self.protocol}
        tree |= {"quality": self.quality, self.quality: self.score._asdict()}
        for key in ("before_adaptation", "nearest_neighbor"):
            estimate = getattr(self, key)
            tree[key] = None if estimate is None else estimate._asdict()
        tree |= {"baselines": in_short(self.baselines), "further": plain(self.further)}
        return tree | {"over_groups": plain(self.over_groups), "breakdown": self.judged.tree()}

    def __str__(self) -> str:
        lines = [f"protocol: {self.protocol}"]
        lines += [f"{name}: {told}" for name, told in rivals_told(self.baselines, self.compared)]
        if self.before_adaptation is not None:
            lines.append(f"{self.split} {self.quality} before adaptation: {self.before_adaptation}")
        beside = *self.judged.told(), *scores_told(self.split, self.further, self.over_groups)
        lines += [f"{name}: {told}" for name, told in beside]
        return "\n".join([*lines, f"{self.split} {self.quality}: {self.score}"])


@dataclass(frozen=True)
class Changes:
    """The changes that an evaluation makes to the experiment stored with a learner.

    Attributes:
        settings: Changes as `key=value`, for instance another `source.path`.
        ways: Number of classes of an episode, or a range; None leaves it as it is.
        shots: Number of support examples of each class, or a range; None leaves it as it is.
        queries: Number of query examples of each class, a range, or "rest"; None leaves it as it is.
    """

    settings: Sequence[str] = ()
    ways: Count | None = None
    shots: Count | None = None
    queries: Count | None = None

    def __post_init__(self) -> None:
        """Refuse what would change nothing.

        Raises:
            InputError: Naming the setting.
        """
        for setting in self.settings:
            first = re.split(r"[.=]", setting)[0]
            if first in Experiment.model_fields and first not in TAKEN:
                raise InputError(
                    f"--set {setting!r} would change nothing: the learner is judged as it was trained; "
                    f"what can be set is {', '.join(TAKEN)}"
                )

    def sets(self, *keys: str) -> bool:
        """Whether a setting changes one of these keys, or a key inside one of them."""
        return any(re.match(rf"{re.escape(key)}[.=]", setting) for setting in self.settings for key in keys)

    def name_data(self, experiment: Experiment) -> bool:
        """Whether the changes name the data to use, beyond how targets are judged."""
        about_targets = tuple(f"source.{name}=" for name in experiment.source.about_targets)
        return any(
            setting.startswith(("source.", "source=")) and not setting.startswith(about_targets)
            for setting in self.settings
        )

    def made(self, experiment: Experiment) -> Experiment:
        """The experiment with these changes.

        Raises:
            InputError: If a key is unknown or a value is wrong.
        """
        experiment = override(experiment, self.settings)
        spec = self.spec(experiment.eval_spec)
        return replace(experiment, evaluation=replace(experiment.evaluation, episodes=spec)) if spec else experiment

    def spec(self, now: EpisodeSpec) -> EpisodeSpec | None:
        """The spec of the episodes asked for, if it differs from the current one.

        Giving all three numbers asks for a plain spec.

        Raises:
            InputError: If a value is wrong.
        """
        asked = {"ways": self.ways, "shots": self.shots, "queries": self.queries}
        given = {key: value for key, value in asked.items() if value is not None}
        if not given:
            return None
        kept = {} if len(given) == len(asked) else now.model_dump()
        return EpisodeSpec.parse(kept | given, where="episodes to judge on")


def evaluate(
    model: str | Path,
    *,
    episodes: int = 1000,
    part: str = "meta-test",
    settings: Sequence[str] = (),
    ways: Count | None = None,
    shots: Count | None = None,
    queries: Count | None = None,
    workers: int = 0,
    cpus_per_worker: float = 1.0,
    device: str = "auto",
    address: str | None = None,
    tracking_uri: str | None = None,
    trust: Sequence[str] = (),
    verify: bool = False,
    progress: JudgingProgress = True,
) -> ModelScore:
    """Evaluate a learner on episodes of its own source and protocol, or of others.

    Example: `metaray.evaluate("models:/omniglot-maml@champion", ways=20)`.

    Args:
        model: URI or folder of the learner, as `metaray.load` takes it.
        episodes: Number of episodes, the first ones of the split's sequence.
        part: Split whose classes are used: "meta-val" or "meta-test".
        settings: Changes to the experiment stored with the learner, as `key=value`, for instance another `source.path`.
        ways: Number of classes of an episode, or a range such as (5, 20); None takes that of the experiment.
        shots: Number of support examples of each class, or a range; None takes that of the experiment.
        queries: Number of query examples of each class, a range, or "rest" for all that are left; None takes that of
            the experiment.
        workers: Number of Ray processes that share the episodes; 0 evaluates in this process. Scores do not depend on
            it.
        cpus_per_worker: Number of CPUs that each worker reserves.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        address: Address of a running Ray cluster, for workers.
        tracking_uri: URI of MLflow; None takes MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory.
        trust: Packages besides metaray whose code the learner may name.
        verify: Whether to compare the data with their fingerprint even if that was done before.
        progress: Whether to show progress; or a function that is called with what is evaluated, and with the numbers of
            finished and of all episodes.

    Returns:
        The scores of the learner and of untrained baselines. It prints as the command line shows it.

    Raises:
        InputError: If the model or the split is unknown, the learner is fixed to another number of ways, the source
            cannot yield such episodes, or, unless `settings` name a source, it holds other data than the learner was
            trained on.
        RunFailed: If the evaluation fails in another process.
    """
    placement = Placement(
        Workers(workers, workers), cpus_per_worker=cpus_per_worker, device=device, address=address, verify=verify
    )
    split, changes = split_of(part), Changes(settings, ways, shots, queries)
    learner = metaray.load(model, tracking_uri=tracking_uri, trust=trust)
    experiment = judged_experiment(str(model), learner, changes, split, episodes, trust, verify=verify)
    inner_steps = experiment.evaluation.inner_steps
    with shown_judging(progress) as show, judging([learner], experiment, placement, trust) as judge:

        def judged(what: str, inner_steps: int | None = None, *, baseline: str | None = None) -> Scores:
            tell = lambda done: show(f"{split}{what}", done, episodes)  # noqa: E731
            return judge(0, split, inner_steps=inner_steps, baseline=baseline, progress=tell)

        score = judged("", inner_steps)
        unadapted = judged(" before adaptation", 0) if learner.algorithm.gradient_steps else None
        names = rivals_beside(learner, experiment)
        rivals = {name: judged(f" by {title_of(name)}", baseline=name) for name in names}
    source = experiment.source
    beside = {"before_adaptation": unadapted, **rivals} if unadapted else rivals
    return ModelScore(
        model=str(model),
        split=split,
        protocol=protocol_of(experiment.eval_spec, learner.algorithm, inner_steps, source),
        quality=experiment.quality,
        score=score.estimate,
        before_adaptation=unadapted.estimate if unadapted else None,
        baselines={name: rival_of(source, score, rival) for name, rival in rivals.items()},
        compared=learner.preprocessing.compared,
        further=further_of(source.task, score),
        over_groups=over_groups_of(source, score),
        judged=judged_of(source, split, score, beside, names),
    )


def split_of(name: str) -> Split:
    """The split with this name, if it can be used for evaluation.

    Raises:
        InputError: If there is no such split.
    """
    if name not in SPLITS:
        raise unknown("split", name, SPLITS)
    return SPLITS[name]


def judged_experiment(
    model: str,
    learner: Learner,
    changes: Changes,
    split: Split,
    episodes: int,
    trust: Sequence[str],
    *,
    verify: bool = False,
) -> Experiment:
    """The experiment stored with a learner, with changes: the source and protocol of an evaluation.

    Args:
        model: Name of the learner in messages.
        learner: The learner, loaded from `model`.
        changes: Changes to the stored experiment.
        split: Split whose episodes are evaluated.
        episodes: Number of episodes.
        trust: Packages besides metaray whose code the experiment may name.
        verify: Whether to compare the data with their fingerprint even if that was done before.

    Raises:
        InputError: If no experiment is stored, its data are missing, or the source cannot yield such episodes.
    """
    stored = learner.provenance.get("experiment")
    if stored is None:
        raise InputError(f"{model} does not say which experiment it comes from, so it cannot be judged")
    experiment = Experiment.parse(stored, where=f"experiment of {model}", context={"trust": tuple(trust)})
    asked = changes.spec(experiment.eval_spec)
    if asked is not None and learner.ways not in (None, asked.fixed_ways) and changes.ways is not None:
        raise InputError(
            f"{model} is fixed to its {learner.ways} ways, as {learner.algorithm.kind} learners are, so it cannot be "
            f"judged at {asked.ways_in_words}; leave out --ways"
        )
    count = f"evaluation.{'val' if split == 'meta-val' else 'test'}_episodes={episodes}"
    experiment = override(changes.made(experiment), [count])
    if verify:
        experiment.source.verify()
    if not changes.name_data(experiment):
        _require_own_data(model, learner, experiment)
    spec = experiment.eval_spec
    experiment.source.check(split, spec)
    return experiment


def _require_own_data(model: str, learner: Learner, experiment: Experiment) -> None:
    own, found = learner.provenance.get("source_fingerprint"), experiment.source.fingerprint
    if own is not None and own != found:
        raise InputError(
            f"{model} comes from other data: the source's fingerprint was {str(own)[:12]}..., now it is "
            f"{found[:12]}...; bring those data back, or name these to judge it on them all the same, as in "
            f"--set source.{_first_field(experiment)}"
        )


def _first_field(experiment: Experiment) -> str:
    """A setting of the source that changes nothing."""
    kind = experiment.model_dump(mode="json")["source"]
    return f"path={kind['path']}" if "path" in kind else f"kind={kind['kind']}"
