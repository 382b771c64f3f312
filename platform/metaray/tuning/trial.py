"""A trial of a search: one experiment with its own values of the searched fields, and how it went."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

TrialStatus = Literal["waiting", "running", "finished", "stopped early", "failed"]
ENDED: tuple[TrialStatus, ...] = ("finished", "stopped early", "failed")


class Objective(NamedTuple):
    """The objective that a search optimises on meta-val.

    Attributes:
        name: Name of a score, such as "accuracy", or "loss".
        highest: Whether higher values are better.
    """

    name: str
    highest: bool

    def better(self, a: float, b: float) -> bool:
        """Whether `a` is better than `b`. What is not finite is worse than anything."""
        if not (math.isfinite(a) and math.isfinite(b)):
            return math.isfinite(a)
        return a > b if self.highest else a < b


class TrialScore(NamedTuple):
    """One evaluation of a trial on meta-val.

    Attributes:
        step: Number of outer steps done.
        episodes: Number of meta-train episodes seen: steps * meta-batch size.
        value: Value of the objective, a mean over meta-val episodes.
        half_width: Half the width of the value's 95% interval; NaN if unknown.
    """

    step: int
    episodes: int
    value: float
    half_width: float = math.nan


@dataclass(frozen=True)
class Trial:
    """The state of one trial of a search.

    Attributes:
        number: Number of the trial, from 0, in the order of proposal.
        settings: Value of each searched field, by its dotted key, in JSON types. An inner learning rate may be a
            schedule, `{"steps": [...], "values": [...]}`.
        num_episodes: Number of meta-train episodes of the complete training.
        status: Status of the trial, such as running, finished or failed.
        why: Reason why the trial failed or was stopped, in one line.
        curve: Evaluations so far, by step.
        inherited: Number of episodes that were seen by the trial of which this one is a copy.
        tracking_run: Id of the trial's MLflow run; None before there is one.
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
        """Number of meta-train episodes seen up to the last evaluation."""
        return self.curve[-1].episodes if self.curve else 0

    @property
    def own_episodes(self) -> int:
        """Number of meta-train episodes that the trial has seen itself, without those of the copied trial."""
        return max(0, self.episodes - self.inherited)

    def best(self, objective: Objective) -> TrialScore | None:
        """The best evaluation, the first of equal ones; None if none is finite."""
        found: TrialScore | None = None
        for judged in self.curve:
            if math.isfinite(judged.value) and (found is None or objective.better(judged.value, found.value)):
                found = judged
        return found


def trial_name(number: int) -> str:
    """Name of a trial's run and of its folder."""
    return f"trial-{number:04d}"


def winner_of(trials: Iterable[Trial], objective: Objective) -> Trial | None:
    """The best trial of those that trained to the end, else of the others; None without any evaluation.

    Among equal trials the one with the lowest number wins.
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
