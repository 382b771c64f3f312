"""A trial of a search: one experiment with its own values of the searched fields, and how it went."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

TrialStatus = Literal["waiting", "running", "finished", "stopped early", "failed"]
ENDED: tuple[TrialStatus, ...] = ("finished", "stopped early", "failed")


class Objective(NamedTuple):
    """What a search optimises, on meta-val.

    Attributes:
        name: Name of a score, as "accuracy", or "loss".
        highest: Whether more is better.
    """

    name: str
    highest: bool

    def better(self, a: float, b: float) -> bool:
        """Whether `a` is better than `b`. What is not finite is worse than anything."""
        if not (math.isfinite(a) and math.isfinite(b)):
            return math.isfinite(a)
        return a > b if self.highest else a < b


class TrialScore(NamedTuple):
    """One evaluation on meta-val.

    Attributes:
        step: Outer steps done.
        episodes: Meta-train episodes seen, steps * meta-batch size.
        value: The objective: a mean over meta-val episodes.
        half_width: Half the width of the value's 95% interval; NaN where it is not known.
    """

    step: int
    episodes: int
    value: float
    half_width: float = math.nan


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        number: 0, 1, ... in the order in which they were proposed.
        settings: The value of each searched field, by its dotted key. JSON values; an inner learning rate may be a
            schedule, `{"steps": [...], "values": [...]}`.
        num_episodes: Meta-train episodes of the whole training.
        status: How it is.
        why: It failed, or was stopped; one line.
        curve: Its evaluations so far, by step.
        inherited: Episodes of them that another trial has seen, of which it is a copy.
        tracking_run: Id of its MLflow run; None before it has one.
        seconds: Seconds that the trial has trained.
    """

    number: int
    settings: Mapping[str, Any]
    num_episodes: int
    status: TrialStatus = "waiting"
    why: str = ""
    curve: tuple[TrialScore, ...] = ()
    inherited: int = 0
    tracking_run: str | None = None
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Name of the trial's run: `trial-0003`."""
        return trial_name(self.number)

    @property
    def episodes(self) -> int:
        """Meta-train episodes seen, as of its last evaluation."""
        return self.curve[-1].episodes if self.curve else 0

    @property
    def own_episodes(self) -> int:
        """Meta-train episodes that it has seen itself."""
        return max(0, self.episodes - self.inherited)

    def best(self, objective: Objective) -> TrialScore | None:
        """Its best evaluation, of equal ones the first; None without a finite one."""
        found: TrialScore | None = None
        for judged in self.curve:
            if math.isfinite(judged.value) and (found is None or objective.better(judged.value, found.value)):
                found = judged
        return found


def trial_name(number: int) -> str:
    """The name of a trial's run, which is also its folder."""
    return f"trial-{number:04d}"


def winner_of(trials: Iterable[Trial], objective: Objective) -> Trial | None:
    """The best of those that trained to the end; of those that did not where none did; None without any evaluation.

    Of equal ones that with the lowest number.
    """
    judged = [trial for trial in trials if trial.best(objective) is not None]
    ended = [trial for trial in judged if trial.status == "finished"]
    found: Trial | None = None
    for trial in sorted(ended or judged, key=lambda trial: trial.number):
        mine, best = trial.best(objective), found.best(objective) if found is not None else None
        assert mine is not None
        if best is None or objective.better(mine.value, best.value):
            found = trial
    return found
