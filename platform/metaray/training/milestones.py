"""Where on its way a run is recorded, judged, saved and stopped: pure functions of how many steps are done."""

from typing import NamedTuple

from metaray.experiment.experiment import Experiment

POINTS_A_CURVE = 500


class Milestones(NamedTuple):
    """Those of one call.

    Attributes:
        experiment: Experiment that is trained.
        until: Outer steps after which the call stops; None goes on to the end.
    """

    experiment: Experiment
    until: int | None = None

    def is_last(self, done: int) -> bool:
        """Whether all steps are done."""
        return done == self.experiment.num_steps

    def stops(self, done: int, *, asked: bool) -> bool:
        """Whether the call ends here before the run does; `asked` to or as planned."""
        return (asked or done == self.until) and not self.is_last(done)

    def judges(self, done: int) -> bool:
        """Whether the state is judged on meta-val."""
        return self.is_last(done) or _due(done, self.experiment.evaluation.every)

    def records(self, done: int) -> bool:
        """Whether the means over the steps since the last record are recorded."""
        return self.judges(done) or _due(done, max(1, self.experiment.num_steps // POINTS_A_CURVE))

    def saves(self, done: int) -> bool:
        """Whether there is a checkpoint, besides one where the call stops."""
        return self.judges(done) or _due(done, self.experiment.checkpoint.every)

    def looks(self, done: int) -> bool:
        """Whether the state of just then is needed: the loop must not be ahead of it."""
        return self.saves(done) or self.stops(done, asked=False)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
