"""Two learners on the same episodes: their paired difference says more than two scores with their intervals."""

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import metaray
from metaray.api.evaluate import Changes, judged_experiment, split_of
from metaray.api.judging import judging
from metaray.displays.progress import JudgingProgress, shown_judging
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment, protocol_of
from metaray.learners.learner import Learner
from metaray.records.estimate import Estimate, paired_difference
from metaray.records.over_groups import GroupEstimate, over_groups
from metaray.tasks.score import score_named
from metaray.training.evaluation import require_fit, require_same_preparation
from metaray.training.placement import Placement, Workers
from metaray.training.reports import groups_of


@dataclass(frozen=True)
class Comparison:
    """The scores of two learners on the same episodes, and their difference.

    Attributes:
        models: Names of the two learners, as they were given.
        split: Split whose episodes were used: "meta-val" or "meta-test".
        protocols: Evaluation protocol of each learner, in words.
        quality: Name of the score, one of `metaray.tasks.score.SCORES`.
        scores: Mean score of each learner after adaptation, with its 95% interval.
        difference: Mean of the paired differences by episode, second minus first, with its 95% interval.
        difference_over_groups: The same difference over groups; None if tasks do not belong to groups. If present, it
            decides `better`.
        by_episode: Score of each learner in each episode.
        experiments: Experiment that each learner comes from, in JSON types; empty if a learner does not record it.
    """

    models: tuple[str, str]
    split: str
    protocols: tuple[str, str]
    quality: str
    scores: tuple[Estimate, Estimate]
    difference: Estimate
    difference_over_groups: GroupEstimate | None = None
    by_episode: tuple[Sequence[float], Sequence[float]] = field(default=((), ()), repr=False)
    experiments: tuple[Mapping[str, Any], Mapping[str, Any]] = field(default=({}, {}), repr=False)

    def tree(self) -> dict[str, Any]:
        """The comparison in JSON types, as `metaray compare --json` prints it."""
        tree: dict[str, Any] = {"models": self.models, "split": self.split, "protocols": self.protocols}
        tree |= {"quality": self.quality, "scores": [score._asdict() for score in self.scores]}
        over = self.difference_over_groups
        tree |= {"difference": self.difference._asdict(), "difference_over_groups": over and over._asdict()}
        return tree | {"better": self.better, "verdict": self.verdict}

    @property
    def _decisive(self) -> Estimate | GroupEstimate:
        return self.difference if self.difference_over_groups is None else self.difference_over_groups

    @property
    def better(self) -> str | None:
        """Name of the model with the better score; None if the interval of the difference contains zero."""
        first, second = self.models
        decisive = self._decisive
        if not abs(decisive.mean) > decisive.half_width:  # nor is NaN
            return None
        return second if score_named(self.quality).gain(decisive.mean) > 0 else first

    @property
    def verdict(self) -> str:
        """The conclusion from the difference, in words."""
        difference, over = self._decisive, self.difference_over_groups
        if not math.isfinite(difference.mean):
            return "no verdict: a score is not finite"
        if over is not None and over.groups == 1:
            return "neither is shown to be better: one group alone says nothing of others"
        what = "the difference" if over is None else "the difference over groups"
        if self.better is None:
            return f"neither is shown to be better: the interval of {what} holds zero"
        side = "above" if difference.mean > 0 else "below"
        less = "" if score_named(self.quality).higher_is_better else f", and of {self.quality} less is better"
        return f"{self.better} is better: the interval of {what} lies {side} zero{less}"

    def __str__(self) -> str:
        same = len(set(self.protocols)) == 1
        lines = [f"protocol: {self.protocols[0]}"] if same else []
        for model, protocol, score in zip(self.models, self.protocols, self.scores, strict=True):
            lines += [] if same else [f"protocol of {model}: {protocol}"]
            lines.append(f"{self.split} {self.quality} of {model}: {score}")
        half_width, episodes = self.difference.half_width, self.difference.episodes
        lines.append(
            f"difference, second - first: {self.difference.mean:+.4f} +- {half_width:.4f} ({episodes} episodes, paired)"
        )
        if self.difference_over_groups is not None:
            lines.append(f"difference over groups, second - first: {self.difference_over_groups}")
        return "\n".join([*lines, self.verdict])


def write_report(compared: Comparison, path: Path, command: str) -> None:
    """Write a comparison as one self-contained HTML file.

    Args:
        compared: The comparison.
        path: HTML file to write.
        command: Command that makes the report again; secrets in it are removed.

    Raises:
        InputError: If the file cannot be written.
    """
    # Only here, since most comparisons are only printed.
    from metaray.reports.comparison_page import comparison_page
    from metaray.reports.facts import ComparisonFacts, Side
    from metaray.reports.page import write_page

    over = compared.difference_over_groups
    names, protocols, scores = compared.models, compared.protocols, compared.scores
    first, second = map(Side, names, protocols, scores, compared.by_episode, compared.experiments)
    facts = ComparisonFacts(
        sides=(first, second),
        split=compared.split,
        quality=compared.quality,
        difference=compared.difference,
        over_groups="" if over is None else str(over),
        better=compared.better,
        verdict=compared.verdict,
        again=command,
    )
    write_page(comparison_page(facts), path)


def compare(
    first: str | Path,
    second: str | Path,
    *,
    episodes: int = 1000,
    part: str = "meta-test",
    settings: Sequence[str] = (),
    workers: int = 0,
    cpus_per_worker: float = 1.0,
    device: str = "auto",
    address: str | None = None,
    tracking_uri: str | None = None,
    trust: Sequence[str] = (),
    verify: bool = False,
    out: str | Path | None = None,
    progress: JudgingProgress = True,
) -> Comparison:
    """Evaluate two learners on the same episodes: those of the first learner's source and protocol.

    Each learner takes the number of inner steps that it was evaluated with in training, unless `settings` change it.

    Args:
        first: URI or folder of the first learner, as `metaray.load` takes it.
        second: URI or folder of the second learner, as `metaray.load` takes it.
        episodes: Number of episodes, the first ones of the split's sequence.
        part: Split whose classes are used: "meta-val" or "meta-test".
        settings: Changes to the experiment stored with the first learner, as `key=value`, for instance another
            `source.path`.
        workers: Number of Ray processes that share the episodes; 0 evaluates in this process. Scores do not depend on
            it.
        cpus_per_worker: Number of CPUs that each worker reserves.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        address: Address of a running Ray cluster, for workers.
        tracking_uri: URI of MLflow; None takes MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory.
        trust: Packages besides metaray whose code the learners may name.
        verify: Whether to compare the data with their fingerprint even if that was done before.
        out: Path of an HTML report of the comparison; None writes none.
        progress: Whether to show progress; or a function that is called with what is evaluated, and with the numbers of
            finished and of all episodes.

    Returns:
        The scores of both learners and their difference. It prints as the command line shows it.

    Raises:
        InputError: If `metaray.evaluate` would refuse the first learner, the second learner does not fit such tasks, or
            the report cannot be written.
        RunFailed: If the evaluation fails in another process.
    """
    placement = Placement(
        Workers(workers, workers), cpus_per_worker=cpus_per_worker, device=device, address=address, verify=verify
    )
    if out is not None:
        from metaray.reports.page import require_place

        require_place(Path(out))
    split, changes, models = split_of(part), Changes(settings), (str(first), str(second))
    learners = [metaray.load(model, tracking_uri=tracking_uri, trust=trust) for model in models]
    experiment = judged_experiment(models[0], learners[0], changes, split, episodes, trust, verify=verify)
    for model, learner in zip(models, learners, strict=True):
        _require_such_tasks(model, learner, models[0], experiment)
    wanted = experiment.evaluation.inner_steps
    asked = changes.sets("evaluation.inner_steps") or wanted != learners[0].inner_steps
    steps = [wanted if asked else learner.inner_steps for learner in learners]
    with shown_judging(progress) as show, judging(learners, experiment, placement, trust) as judge:

        def told(model: str) -> Callable[[int], None]:
            return lambda done: show(f"{model} on {split}", done, episodes)

        one, other = (
            judge(which, split, inner_steps=steps[which], progress=told(model)) for which, model in enumerate(models)
        )
    spec, groups = experiment.eval_spec, groups_of(experiment.source, one)
    protocols = [
        protocol_of(spec, learner.algorithm, n, experiment.source) for learner, n in zip(learners, steps, strict=True)
    ]
    compared = Comparison(
        models=models,
        split=split,
        protocols=(protocols[0], protocols[1]),
        quality=experiment.quality,
        scores=(one.estimate, other.estimate),
        difference=paired_difference(other.score, one.score),
        difference_over_groups=over_groups(other.score - one.score, groups) if groups else None,
        by_episode=(tuple(one.score.tolist()), tuple(other.score.tolist())),
        experiments=(_origin(learners[0]), _origin(learners[1])),
    )
    if out is not None:
        words = [*models, "--episodes", str(episodes), "--part", part, *(w for s in settings for w in ("--set", s))]
        write_report(compared, Path(out), shlex.join(["metaray", "compare", *words, "--out", str(out)]))
    return compared


def _origin(learner: Learner) -> Mapping[str, Any]:
    """The experiment that a learner comes from."""
    found: Mapping[str, Any] = learner.provenance.get("experiment") or {}
    return found


def _require_such_tasks(model: str, learner: Learner, first: str, experiment: Experiment) -> None:
    try:
        require_fit(learner, experiment)
        require_same_preparation(learner, experiment.source)
    except InputError as error:
        raise InputError(f"{model} cannot be judged on the tasks of {first}: {error}") from None
