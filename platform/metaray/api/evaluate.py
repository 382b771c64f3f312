"""Judging a learner from the registry: on its own source and protocol, or on others."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import metaray
from metaray.api.judging import judging
from metaray.config import replace
from metaray.data.draws import Split
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError, unknown
from metaray.experiment.experiment import Experiment, protocol_of
from metaray.experiment.overrides import override
from metaray.experiment.quality import Quality
from metaray.learners.learner import Learner
from metaray.records.estimate import Estimate
from metaray.training.placement import Placement

Progress = Callable[[str, int, int], None]

SPLITS: dict[str, Split] = {"meta-val": "meta-val", "meta-test": "meta-test"}
HERE = Placement()
TAKEN = ("source", "episodes", "evaluation", "precision", "chunk_size", "threads_per_worker")
"""What of an experiment says how a learner is judged; the rest is part of the learner."""


@dataclass(frozen=True)
class ModelScore:
    """An evaluation.

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
    quality: Quality
    score: Estimate
    before_adaptation: Estimate | None
    nearest_neighbor: Estimate
    compared: str


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


def evaluate_model(
    model: str,
    *,
    episodes: int,
    split: str,
    settings: Sequence[str] = (),
    ways: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    tracking: str | None = None,
    trust: Sequence[str] = (),
    placement: Placement = HERE,
    progress: Progress = lambda what, done, episodes: None,
) -> ModelScore:
    """Judge a learner on the first `episodes` episodes of a split.

    Args:
        model: as for `metaray.load`.
        episodes: how many.
        split: "meta-val" or "meta-test".
        settings: changes to the experiment stored with the learner, for instance another `source.path`.
        ways: classes of an episode; None takes those of the experiment, here and below.
        shots: support examples a class.
        queries: query examples a class.
        tracking: URI of MLflow.
        trust: packages besides metaray whose code the learner may name.
        placement: where it is judged; changes no score on processors of one kind.
        progress: Told what is being judged, and how many episodes of how many are done.

    Raises:
        InputError: for an unknown model or split, a learner that is fixed to other ways, a source that cannot yield
            such episodes, or, unless settings say what data to use, one that holds other data than the learner comes
            from.
        RunFailed: if judging fails in another process.
    """
    part, changes = split_of(split), Changes(settings, ways, shots, queries)
    learner = metaray.load(model, tracking_uri=tracking, trust=trust)
    experiment = judged_experiment(model, learner, changes, part, episodes, trust, verify=placement.verify)
    inner_steps = experiment.evaluation.inner_steps
    with judging([learner], experiment, placement, trust) as judge:

        def judged(what: str, inner_steps: int | None = None, *, nearest: bool = False) -> Estimate:
            tell = lambda done: progress(f"{split}{what}", done, episodes)  # noqa: E731
            return judge(0, part, inner_steps=inner_steps, nearest=nearest, progress=tell).estimate

        score = judged("", inner_steps)
        unadapted = judged(" before adaptation", 0) if learner.algorithm.gradient_steps else None
        nearest = judged(" by nearest neighbour", nearest=True)
    return ModelScore(
        model=model,
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
