"""Sums over steps, for means to record: they outlive a checkpoint, so that a stop leaves no trace in the metrics."""

from metaray.training.outer_loop import Step

COUNT = "steps"
SUMMED = ("loss", "score", "gradient_norm", "wait_s", "duration_s")


class StepSums:
    """Adds up what steps report.

    Args:
        sums: Sums to go on from.
    """

    def __init__(self, sums: dict[str, float] | None = None) -> None:
        self.sums = {COUNT: 0, **dict.fromkeys(SUMMED, 0.0), **(sums or {})}

    def count(self, step: Step) -> None:
        """Add one step."""
        self.sums[COUNT] += 1
        for key in SUMMED:
            self.sums[key] += getattr(step, key)

    def mean(self, key: str) -> float:
        """A mean over the steps counted, 0 where there are none."""
        return self.sums[key] / self.sums[COUNT] if self.sums[COUNT] else 0.0

    @property
    def wait_share(self) -> float:
        """Share of the time that was spent waiting for episodes."""
        return self.sums["wait_s"] / self.sums["duration_s"] if self.sums["duration_s"] else 0.0

    @property
    def steps_per_s(self) -> float:
        """Steps a second."""
        return self.sums[COUNT] / self.sums["duration_s"] if self.sums["duration_s"] else 0.0
