"""Judging a learner from the registry: on its own source and protocol, or on others."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import metaray
from metaray.data.draws import Split
from metaray.errors import InputError, unknown
from metaray.experiment.experiment import Experiment
from metaray.experiment.overrides import override
from metaray.experiment.quality import Quality
from metaray.learners.learner import Learner
from metaray.records.estimate import Estimate
from metaray.training.evaluation import evaluate_learner

Progress = Callable[[str, int, int], None]


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


def evaluate_model(
    model: str,
    *,
    episodes: int,
    split: str,
    settings: Sequence[str],
    tracking: str | None,
    trust: Sequence[str],
    progress: Progress = lambda what, done, episodes: None,
    verify: bool = False,
) -> ModelScore:
    """Judge a learner on the first `episodes` episodes of a split.

    Args:
        model: as for `metaray.load`.
        episodes: how many.
        split: "meta-val" or "meta-test".
        settings: changes to the experiment stored with the learner, for instance another `source.path`.
        tracking: URI of MLflow.
        trust: packages besides metaray whose code the learner may name.
        progress: Told what is being judged, and how many episodes of how many are done.
        verify: compare the data with their fingerprint, also where that was done before.

    Raises:
        InputError: for an unknown model or split, a source that cannot yield such episodes, or, unless settings say
            what data to use, one that holds other data than the learner comes from.
    """
    parts: dict[str, Split] = {"meta-val": "meta-val", "meta-test": "meta-test"}
    if split not in parts:
        raise unknown("split", split, parts)
    learner = metaray.load(model, tracking_uri=tracking, trust=trust)
    stored = learner.provenance.get("experiment")
    if stored is None:
        raise InputError(f"{model} does not say which experiment it comes from, so it cannot be judged")
    experiment = Experiment.parse(stored, where=f"experiment of {model}", context={"trust": tuple(trust)})
    count = f"evaluation.{'val' if split == 'meta-val' else 'test'}_episodes={episodes}"
    experiment = override(experiment, [*settings, count])
    if verify:
        experiment.source.verify()
    if not any(re.match(r"source[.=]", setting) for setting in settings):
        _require_own_data(model, learner, experiment)
    spec = experiment.eval_spec
    experiment.source.check(parts[split], ways=spec.ways, shots=spec.shots, queries=spec.queries)

    def judged(one: Learner, what: str, inner_steps: int | None = None) -> Estimate:
        tell = lambda done: progress(f"{split}{what}", done, episodes)  # noqa: E731
        return evaluate_learner(one, experiment, parts[split], inner_steps=inner_steps, progress=tell).estimate

    score = judged(learner, "")
    unadapted = judged(learner, " before adaptation", 0) if learner.algorithm.gradient_steps else None
    return ModelScore(
        model=model,
        split=split,
        protocol=experiment.protocol,
        quality=experiment.quality,
        score=score,
        before_adaptation=unadapted,
        nearest_neighbor=judged(learner.nearest_neighbor, " by nearest neighbour"),
        compared=learner.preprocessing.compared,
    )


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
