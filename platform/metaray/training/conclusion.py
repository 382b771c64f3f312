"""The end of a run: its best parameters on meta-val and meta-test, and what stands beside them on the same episodes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from metaray.algorithms.context import Tensors
from metaray.data.draws import Split
from metaray.data.source import Source
from metaray.experiment.experiment import Experiment
from metaray.records.judged import Judged
from metaray.tasks.baselines import title_of
from metaray.training.evaluation import Scores
from metaray.training.reports import further_of, judged_of, over_groups_of, rival_of
from metaray.training.rivals import rivals_of


class JudgeOfRun(Protocol):
    """Judges parameters of a run, or a baseline in their place."""

    def __call__(
        self,
        split: Split,
        meta: Tensors,
        step: int,
        *,
        baseline: str | None = None,
        inner_steps: int | None = None,
    ) -> Scores:
        """Scores by episode, of `meta` as it is after `step`."""


@dataclass(frozen=True)
class Verdict:
    """Scores by episode.

    Attributes:
        meta_val: Scores of the best parameters, on meta-val.
        meta_test: Scores of the best parameters, like all that follows on meta-test.
        before_adaptation: Scores with zero inner steps; None where the algorithm takes none.
        before_training: Scores of the initial parameters.
        baselines: Scores on meta-val and on meta-test, by name.
    """

    meta_val: Scores
    meta_test: Scores
    before_adaptation: Scores | None
    before_training: Scores
    baselines: dict[str, tuple[Scores, Scores]]

    def found(self, source: Source) -> dict[str, Any]:
        """The fields of a `Result` that follow from it."""
        unadapted, test = self.before_adaptation, self.meta_test
        return {
            "meta_val": self.meta_val.estimate,
            "meta_val_scores": tuple(self.meta_val.score.tolist()),
            "meta_test": test.estimate,
            "before_adaptation": unadapted.estimate if unadapted else None,
            "before_training": self.before_training.estimate,
            "baselines": {name: rival_of(source, test, there, val) for name, (val, there) in self.baselines.items()},
            "further": further_of(source.task, test),
            "over_groups": over_groups_of(source, test),
        }

    def judged(self, source: Source) -> Judged:
        """The table of meta-test by episode."""
        beside = {"before_adaptation": self.before_adaptation} if self.before_adaptation else {}
        beside |= {"before_training": self.before_training}
        beside |= {name: there for name, (_, there) in self.baselines.items()}
        return judged_of(source, "meta-test", self.meta_test, beside, tuple(self.baselines))


def judged_end(
    experiment: Experiment,
    judge: JudgeOfRun,
    best: Tensors,
    best_step: int,
    initial: Tensors,
    *,
    say: Callable[[str], None],
) -> Verdict:
    """Judge all that a run reports at its end.

    Args:
        experiment: Experiment of the run.
        judge: Judges on its episodes.
        best: The parameters that meta-val chose.
        best_step: The step after which they were.
        initial: The parameters before the first step.
        say: Told what is judged.
    """
    meta_val, meta_test = judge("meta-val", best, best_step), judge("meta-test", best, best_step)
    unadapted = None
    if experiment.algorithm.gradient_steps:
        say("judging: meta-test before adaptation")
        unadapted = judge("meta-test", best, best_step, inner_steps=0)
    names = rivals_of(experiment.source, experiment.model)
    also = f", and by {', '.join(map(title_of, names))}" if names else ""
    say(f"judging: meta-test before training{also}")
    untrained = judge("meta-test", initial, 0)
    rivals = {
        name: (judge("meta-val", {}, 0, baseline=name), judge("meta-test", {}, 0, baseline=name)) for name in names
    }
    return Verdict(meta_val, meta_test, unadapted, untrained, rivals)
