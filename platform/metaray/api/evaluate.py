"""Judging a learner from the registry: on its own source and protocol, or on others."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
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
from metaray.training.placement import Placement, Workers

SPLITS: dict[str, Split] = {"meta-val": "meta-val", "meta-test": "meta-test"}
TAKEN = ("source", "episodes", "evaluation", "precision", "chunk_size", "threads_per_worker")
"""What of an experiment says how a learner is judged; the rest is part of the learner."""


@dataclass(frozen=True)
class ModelScore:
    """An evaluation. It prints as the command line shows it.

    Attributes:
        model: what was judged.
        split: on what.
        protocol: how the scores are to be read.
        quality: what the scores are.
        score: after adaptation.
        before_adaptation: with zero inner steps; None where the algorithm takes none.
        nearest_neighbor: on pixels (or other inputs), same episodes.
        compared: what the nearest neighbour compares, in words.
    """

    model: str
    split: str
    protocol: str
    quality: str
    score: Estimate
    before_adaptation: Estimate | None
    nearest_neighbor: Estimate
    compared: str

    def tree(self) -> dict[str, Any]:
        """The same for JSON, as `metaray evaluate --json` prints it."""
        tree: dict[str, Any] = {"model": self.model, "split": self.split, "protocol": self.protocol}
        tree |= {"quality": self.quality, self.quality: self.score._asdict()}
        for key in ("before_adaptation", "nearest_neighbor"):
            estimate = getattr(self, key)
            tree[key] = None if estimate is None else estimate._asdict()
        return tree

    def __str__(self) -> str:
        lines = [f"protocol: {self.protocol}", f"nearest neighbour on {self.compared}: {self.nearest_neighbor}"]
        if self.before_adaptation is not None:
            lines.append(f"{self.split} {self.quality} before adaptation: {self.before_adaptation}")
        return "\n".join([*lines, f"{self.split} {self.quality}: {self.score}"])


@dataclass(frozen=True)
class Changes:
    """What an evaluation changes of the experiment that a learner comes from.

    Attributes:
        settings: `key=value`, for instance another `source.path`.
        ways: classes of an episode; None leaves them as they are, here and below.
        shots: support examples a class.
        queries: query examples a class.
    """

    settings: Sequence[str] = ()
    ways: int | None = None
    shots: int | None = None
    queries: int | None = None

    def __post_init__(self) -> None:
        """Refuse what would change nothing.

        Raises:
            InputError: naming the setting.
        """
        for setting in self.settings:
            first = re.split(r"[.=]", setting)[0]
            if first in Experiment.model_fields and first not in TAKEN:
                raise InputError(
                    f"--set {setting!r} would change nothing: the learner is judged as it was trained; "
                    f"what can be set is {', '.join(TAKEN)}"
                )

    def sets(self, *keys: str) -> bool:
        """Whether a setting is one of these, or lies in one of them."""
        return any(re.match(rf"{re.escape(key)}[.=]", setting) for setting in self.settings for key in keys)

    def made(self, experiment: Experiment) -> Experiment:
        """The experiment with these changes.

        Raises:
            InputError: for an unknown key or a wrong value.
        """
        experiment = override(experiment, self.settings)
        asked = {"ways": self.ways, "shots": self.shots, "queries": self.queries}
        if all(value is None for value in asked.values()):
            return experiment
        values = {key: getattr(experiment.eval_spec, key) if value is None else value for key, value in asked.items()}
        spec = EpisodeSpec.parse(values, where="episodes to judge on")
        return replace(experiment, evaluation=replace(experiment.evaluation, episodes=spec))


def evaluate(
    model: str | Path,
    *,
    episodes: int = 1000,
    part: str = "meta-test",
    settings: Sequence[str] = (),
    ways: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    workers: int = 0,
    cpus_per_worker: float = 1.0,
    device: str = "auto",
    address: str | None = None,
    tracking_uri: str | None = None,
    trust: Sequence[str] = (),
    verify: bool = False,
    progress: JudgingProgress = True,
) -> ModelScore:
    """Judge a learner on episodes of its own source and protocol, or of others.

    Example: `metaray.evaluate("models:/omniglot-maml@champion", ways=20)`.

    Args:
        model: As for `metaray.load`.
        episodes: Number of episodes, the first ones of the part.
        part: Whose classes: "meta-val" or "meta-test".
        settings: Changes to the experiment stored with the learner, `key=value`, for instance another `source.path`.
        ways: Number of classes of an episode; None takes that of the experiment, here and below.
        shots: Number of support examples a class.
        queries: Number of query examples a class.
        workers: Number of processes on Ray that share the episodes; 0 judges in this one. The scores are the same.
        cpus_per_worker: Number of CPUs that each of them reserves.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        address: Address of a running Ray cluster, for workers.
        tracking_uri: URI of MLflow; None takes MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory.
        trust: Packages besides metaray whose code the learner may name.
        verify: Whether the data are compared with their fingerprint, also where that was done before.
        progress: Whether to show progress; or what is told what is judged, and how many episodes of how many are done.

    Raises:
        InputError: For an unknown model or part, a learner that is fixed to other ways, a source that cannot yield
            such episodes, or, unless settings say what data to use, one that holds other data than the learner comes
            from.
        RunFailed: If judging fails in another process.
    """
    placement = Placement(
        Workers(workers, workers), cpus_per_worker=cpus_per_worker, device=device, address=address, verify=verify
    )
    split, changes = split_of(part), Changes(settings, ways, shots, queries)
    learner = metaray.load(model, tracking_uri=tracking_uri, trust=trust)
    experiment = judged_experiment(str(model), learner, changes, split, episodes, trust, verify=verify)
    inner_steps = experiment.evaluation.inner_steps
    with shown_judging(progress) as show, judging([learner], experiment, placement, trust) as judge:

        def judged(what: str, inner_steps: int | None = None, *, nearest: bool = False) -> Estimate:
            tell = lambda done: show(f"{split}{what}", done, episodes)  # noqa: E731
            return judge(0, split, inner_steps=inner_steps, nearest=nearest, progress=tell).estimate

        score = judged("", inner_steps)
        unadapted = judged(" before adaptation", 0) if learner.algorithm.gradient_steps else None
        nearest = judged(" by nearest neighbour", nearest=True)
    return ModelScore(
        model=str(model),
        split=split,
        protocol=protocol_of(experiment.eval_spec, learner.algorithm, inner_steps),
        quality=experiment.quality,
        score=score,
        before_adaptation=unadapted,
        nearest_neighbor=nearest,
        compared=learner.preprocessing.compared,
    )


def split_of(name: str) -> Split:
    """A split to judge on, by name.

    Raises:
        InputError: if it is none.
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
    """The experiment that a learner comes from, with changes; it says on what a learner is judged, and how.

    Args:
        model: named in errors.
        learner: that was loaded as `model`.
        changes: to the experiment.
        split: that is judged on.
        episodes: how many.
        trust: packages besides metaray whose code the experiment may name.
        verify: compare the data with their fingerprint, also where that was done before.

    Raises:
        InputError: if there is none, it has no such data any more, or these cannot yield such episodes.
    """
    stored = learner.provenance.get("experiment")
    if stored is None:
        raise InputError(f"{model} does not say which experiment it comes from, so it cannot be judged")
    experiment = Experiment.parse(stored, where=f"experiment of {model}", context={"trust": tuple(trust)})
    if changes.ways is not None and learner.ways not in (None, changes.ways):
        raise InputError(
            f"{model} is fixed to its {learner.ways} ways, as {learner.algorithm.kind} learners are, so it cannot be "
            f"judged at {changes.ways} ways; leave out --ways"
        )
    count = f"evaluation.{'val' if split == 'meta-val' else 'test'}_episodes={episodes}"
    experiment = override(changes.made(experiment), [count])
    if verify:
        experiment.source.verify()
    if not changes.sets("source"):
        _require_own_data(model, learner, experiment)
    spec = experiment.eval_spec
    experiment.source.check(split, ways=spec.ways, shots=spec.shots, queries=spec.queries)
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
