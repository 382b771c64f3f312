"""What reports tell: found out by one side of this room, put into a page by the other, which looks nothing up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaray.plots.function_fits import FunctionFit
from metaray.records.estimate import Estimate
from metaray.records.journal import Metric
from metaray.records.judged import Judged
from metaray.records.result import Result
from metaray.reports.calibration import Calibration, Level
from metaray.reports.confusion import ClassScore, Confusion
from metaray.tasks.score import Score


class Missing(NamedTuple):
    """What a report cannot tell.

    Attributes:
        why: A sentence.
        command: What would make it; empty where nothing would.
    """

    why: str
    command: str = ""


class Point(NamedTuple):
    """A score at a number of inner steps, or of shots.

    Attributes:
        at: Number of inner steps or of shots.
        score: Score over the episodes that were judged there.
        baselines: What needs no training, on the same episodes, by name; empty where that would not change.
    """

    at: int
    score: Estimate
    baselines: Mapping[str, Estimate] = {}


class Tile(NamedTuple):
    """An example of an example task.

    Attributes:
        picture: Data URI of a PNG; empty where it is no picture.
        told: The input in words where it is a few numbers; else empty.
        truth: What is right.
        answer: What was predicted; empty of support examples.
        right: Whether that is so; None where it is not a matter of right and wrong.
    """

    picture: str
    told: str
    truth: str
    answer: str = ""
    right: bool | None = None


class Row(NamedTuple):
    """Some examples of an example task: those of one class, or all of them where there are none.

    Attributes:
        name: Name of the class; empty where there are none.
        support: Examples that it is learned from.
        query: Examples that were asked.
    """

    name: str
    support: Sequence[Tile]
    query: Sequence[Tile]


class Example(NamedTuple):
    """One task, and what the learner makes of it.

    Attributes:
        title: Title that says which task it is, and how it went.
        rows: Its examples.
        left_out: A sentence about what is not shown; empty where all is.
    """

    title: str
    rows: Sequence[Row]
    left_out: str = ""


@dataclass(frozen=True)
class Classes:
    """What is known of classes.

    Attributes:
        names: Name of each class that was asked for, by its number.
        scores: Score of each class, the worst first.
        confused: The pairs that are confused most.
        calibration: Calibration of the confidence in the predicted class.
    """

    names: Mapping[int, str]
    scores: Sequence[ClassScore]
    confused: Sequence[Confusion]
    calibration: Calibration


@dataclass(frozen=True)
class Values:
    """What is known of predicted values, one number each, in their own units.

    Attributes:
        truth: [n] of all queries and all values of a target.
        told: [n] what was predicted.
        by_episode: [E] score of each episode.
        coverage: How often the truth lay in the learner's own intervals; empty where it gives none.
        fits: Tasks that are functions of one number, to be drawn.
    """

    truth: NDArray[np.float64]
    told: NDArray[np.float64]
    by_episode: NDArray[np.float64]
    coverage: Sequence[Level] = ()
    fits: Sequence[FunctionFit] = ()


@dataclass(frozen=True)
class Measured:
    """What was found out for the report by judging the learner again.

    Attributes:
        split: Part that was judged on: "meta-val" or "meta-test".
        episodes: Number of its first episodes.
        few: Number of these episodes that each point of a curve was judged on.
        protocol: How the scores are to be read.
        score: Mean score of these episodes, with its interval.
        inner_steps: The score by number of inner steps; empty where the algorithm takes none.
        judged_steps: The number that results are judged with.
        shots: The score by number of shots.
        judged_shots: The number that results are judged with; None where it is no one number.
        no_more_shots: Why there are no more; empty where there could be.
        classes: Where targets are classes.
        values: Where they are values.
        examples: Tasks with their predictions.
        seconds: Time that all of this took.
        peak_bytes: Resident memory of the process at most, so far.
        device: Where it was done.
    """

    split: str
    episodes: int
    few: int
    protocol: str
    score: Estimate
    inner_steps: Sequence[Point]
    judged_steps: int | None
    shots: Sequence[Point]
    judged_shots: int | None
    no_more_shots: str
    classes: Classes | None
    values: Values | None
    examples: Sequence[Example]
    seconds: float
    peak_bytes: int | None
    device: str


@dataclass(frozen=True)
class Scored:
    """How well a learner does, and beside what, where there is no result of a run.

    Attributes:
        split: Part that was judged on: "meta-val" or "meta-test".
        score: Mean score after adaptation, with its interval.
        before_adaptation: Mean score before adaptation; None where the algorithm takes no inner steps.
        baselines: What needs no training, by name.
        rivals: The same in words, and how each did.
    """

    split: str
    score: Estimate
    before_adaptation: Estimate | None
    baselines: Mapping[str, Estimate]
    rivals: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class RunFacts:
    """A run, or a learner that came from one.

    Attributes:
        name: Name of the run or learner, as the user gave it.
        kind: "run" or "model".
        state: State of the run, in words.
        tree: Its experiment, as JSON types; empty where nobody knows it.
        score: What decides.
        protocol: How its scores are to be read; empty where nobody knows.
        data: What is known of the data, as pairs of what and what.
        result: What the run found out.
        scored: The same where there is no result.
        judged: How each meta-test episode of the run went.
        metrics: All that was measured.
        origin: Where it comes from: code, versions, command.
        environment: What its newest checkpoint says of the machine.
        parameters: How many numbers were meta-learned; None where nobody knows.
        measured: What was found out anew.
        missing: What cannot be told, by topic.
        again: What makes it again; empty where nobody knows.
        report: What makes this report again.
        notes: What is wrong with it, a sentence each.
    """

    name: str
    kind: str
    state: str
    tree: Mapping[str, Any]
    score: Score
    protocol: str = ""
    data: Sequence[tuple[str, str]] = ()
    result: Result | None = None
    scored: Scored | None = None
    judged: Judged | None = None
    metrics: Sequence[Metric] = ()
    origin: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    parameters: int | None = None
    measured: Measured | None = None
    missing: Mapping[str, Missing] = field(default_factory=dict)
    again: str = ""
    report: str = ""
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Side:
    """One of two learners that were compared.

    Attributes:
        name: Name of the learner, as the user gave it.
        protocol: How its scores are to be read.
        score: Mean score of the learner, with its interval.
        by_episode: The learner's scores by episode.
        tree: Experiment of the learner, as JSON types; empty where it does not say.
    """

    name: str
    protocol: str
    score: Estimate
    by_episode: Sequence[float]
    tree: Mapping[str, Any]


@dataclass(frozen=True)
class ComparisonFacts:
    """Two learners on the same episodes.

    Attributes:
        sides: The first and the second.
        split: Part that was judged on: "meta-val" or "meta-test".
        quality: What the scores are.
        difference: Second - first, paired by episode.
        over_groups: The same over groups, in words; empty where tasks are of none.
        better: Name of the better one; None where neither is shown to be.
        verdict: What the difference says, in words.
        again: What makes it again.
    """

    sides: tuple[Side, Side]
    split: str
    quality: str
    difference: Estimate
    over_groups: str
    better: str | None
    verdict: str
    again: str
