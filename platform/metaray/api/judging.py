"""Where learners are judged: in this process, or by several on Ray; their scores do not depend on it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from metaray.data.draws import Split
from metaray.experiment.experiment import Experiment
from metaray.learners.learner import Learner
from metaray.training.device import choose_device
from metaray.training.evaluation import Scores, evaluate_learner, require_fit
from metaray.training.placement import Placement
from metaray.training.rivals import judged_untrained, untrained_of


class Judge(Protocol):
    """Evaluates one of several learners on the episodes of an experiment."""

    def __call__(
        self,
        which: int,
        split: Split,
        *,
        inner_steps: int | None = None,
        baseline: str | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Scores:
        """Scores by episode.

        Args:
            which: Position of the learner that is judged, from 0.
            split: "meta-val" or "meta-test".
            inner_steps: Instead of the learner's own number.
            baseline: The one of that name in its place.
            progress: Function that is told the number of episodes judged so far.
        """


@contextmanager
def judging(
    learners: Sequence[Learner], experiment: Experiment, placement: Placement, trust: Sequence[str] = ()
) -> Iterator[Judge]:
    """Within the block, evaluate learners in this process, or on Ray if the placement has workers.

    Raises:
        InputError: If a learner does not fit the experiment, there is no such device, or the cluster has no room.
    """
    for learner in learners:
        require_fit(learner, experiment)
    if not placement.in_process:
        from metaray.distributed.judging import Judges  # without workers nothing needs Ray

        with Judges(learners, experiment, placement, trust) as judges:
            yield judges
        return
    device = choose_device(placement.device)

    def judge(
        which: int,
        split: Split,
        *,
        inner_steps: int | None = None,
        baseline: str | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Scores:
        learner = learners[which]
        if baseline is not None:
            rival = untrained_of(baseline, learner, experiment)
            return judged_untrained(rival, experiment, split, device=device, progress=progress)
        return evaluate_learner(learner, experiment, split, device=device, inner_steps=inner_steps, progress=progress)

    yield judge
