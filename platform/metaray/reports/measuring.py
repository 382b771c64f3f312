"""What a learner's record does not hold, found out by judging it again on the first episodes of a part."""

import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from metaray.config import replace
from metaray.data.draws import Split
from metaray.data.preprocessing import TablePreprocessing
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment, protocol_of
from metaray.learners.learner import Learner
from metaray.plots.function_fits import FunctionFit, fits_of
from metaray.records.estimate import estimate
from metaray.reports.answers import Answer, answers
from metaray.reports.calibration import calibration, coverage
from metaray.reports.confusion import by_class, most_confused
from metaray.reports.examples import example
from metaray.reports.facts import Classes, Example, Measured, Point, Values
from metaray.training.evaluation import evaluate_learner
from metaray.training.rivals import judged_untrained, rivals_beside, untrained_of

STEPS, SHOTS = (0, 1, 2, 5, 10, 20, 50, 100), (1, 2, 5, 10, 20)
LEAST_STEPS, LEAST_SHOTS = 5, 10
"""Curves go up to twice the judged number, but at least so far."""
SHARE, FEWEST = 5, 10
"""Each point of a curve is judged on one in so many of the episodes, and on at least so many."""
EXAMPLES, FITS, PAIRS = 2, 4, 12

Show = Callable[[str, int, int], None]


@dataclass(frozen=True)
class _Subject:
    """What is judged, and how."""

    learner: Learner
    experiment: Experiment
    split: Split
    episodes: int
    device: torch.device
    show: Show
    judged: list[float] = field(default_factory=list)
    """Scores of the first episodes as they are judged, which no curve computes again."""
    few: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "few", min(self.episodes, max(FEWEST, self.episodes // SHARE)))


def measure(
    learner: Learner, experiment: Experiment, split: Split, episodes: int, *, device: torch.device, show: Show
) -> Measured:
    """Judge a learner on the episodes that `metaray evaluate` takes, and keep more than scores of it.

    Args:
        learner: Learner to judge.
        experiment: Experiment that says on what it is judged, and how.
        split: "meta-val" or "meta-test".
        episodes: Number of its first episodes, at least 2.
        device: Device to compute on.
        show: Told what is judged, and how many episodes of how many are done.

    Raises:
        InputError: If the learner does not fit the experiment, or its data are not there.
    """
    began_s = time.monotonic()
    one = _Subject(learner, experiment, split, episodes, device, show)
    spec, source = experiment.eval_spec, experiment.source
    source.check(split, spec)
    tell: Callable[[int], None] = lambda done: show(f"answers on {split}", done, episodes)  # noqa: E731
    steps = experiment.evaluation.inner_steps
    found = list(answers(learner, experiment, split, episodes, inner_steps=steps, device=device, progress=tell))
    one.judged.extend(answer.score for answer in found)
    shots, why = _by_shots(one)
    return Measured(
        split=split,
        episodes=episodes,
        few=one.few,
        protocol=protocol_of(spec, learner.algorithm, steps, source),
        score=estimate(one.judged),
        inner_steps=_by_inner_steps(one),
        judged_steps=judged_steps(learner) if learner.algorithm.gradient_steps else None,
        shots=shots,
        judged_shots=spec.shots if isinstance(spec.shots, int) else None,
        no_more_shots=why,
        classes=_classes(one, found) if source.task.has_classes else None,
        values=None if source.task.has_classes else _values(one, found),
        examples=_examples(one, found),
        seconds=time.monotonic() - began_s,
        peak_bytes=_peak_bytes(device),
        device=device.type,
    )


def judged_steps(learner: Learner) -> int | None:
    """The number of inner steps that a learner takes when it is judged; None where its algorithm names none."""
    named = (learner.inner_steps, *(getattr(learner.algorithm, name, None) for name in ("eval_steps", "inner_steps")))
    return next((number for number in named if isinstance(number, int)), None)


def grid(numbers: Iterable[int], judged: int | None, least: int) -> list[int]:
    """The numbers of a curve: round ones, up to twice the judged one or to `least`, and the judged one itself."""
    most = max(least, 2 * (judged or 0))
    return sorted({number for number in numbers if number <= most} | ({judged} if judged is not None else set()))


def _by_inner_steps(one: _Subject) -> list[Point]:
    if not one.learner.algorithm.gradient_steps:
        return []
    own, asked = judged_steps(one.learner), one.experiment.evaluation.inner_steps
    taken, found = own if asked is None else asked, list[Point]()
    for steps in grid(STEPS, own, LEAST_STEPS):
        told = f"{steps} inner steps"
        scores = one.judged[: one.few] if steps == taken else _scores(one, one.experiment, steps, told)
        found.append(Point(steps, estimate(scores)))
    return found


def _by_shots(one: _Subject) -> tuple[list[Point], str]:
    """The points, and why there are no more; none where shots are no one number."""
    spec, source = one.experiment.eval_spec, one.experiment.source
    if not isinstance(spec.shots, int) or spec.sampling != "plain":
        return [], "the number of shots is drawn anew for each episode"
    found: list[Point] = []
    for shots in grid(SHOTS, spec.shots, LEAST_SHOTS):
        asked = replace(spec, shots=shots)
        try:
            source.check(one.split, asked)
        except InputError as error:
            return found, str(error)
        changed = replace(one.experiment, evaluation=replace(one.experiment.evaluation, episodes=asked))
        steps, told = one.experiment.evaluation.inner_steps, f"{shots} shots"
        scores = one.judged[: one.few] if shots == spec.shots else _scores(one, changed, steps, told)
        beside = {
            name: estimate(_untrained_scores(one, name, changed, told))
            for name in rivals_beside(one.learner, one.experiment)
        }
        found.append(Point(shots, estimate(scores), beside))
    return found, ""


def _untrained_scores(one: _Subject, name: str, experiment: Experiment, told: str) -> Sequence[float]:
    tell: Callable[[int], None] = lambda done: one.show(f"{told} on {one.split}", done, one.few)  # noqa: E731
    rival = untrained_of(name, one.learner, experiment)
    scores = judged_untrained(rival, experiment, one.split, device=one.device, episodes=range(one.few), progress=tell)
    found: list[float] = scores.score.tolist()
    return found


def _scores(one: _Subject, experiment: Experiment, steps: int | None, told: str) -> Sequence[float]:
    tell: Callable[[int], None] = lambda done: one.show(f"{told} on {one.split}", done, one.few)  # noqa: E731
    scores = evaluate_learner(
        one.learner, experiment, one.split, device=one.device, episodes=range(one.few), inner_steps=steps, progress=tell
    )
    found: list[float] = scores.score.tolist()
    return found


def _classes(one: _Subject, found: Sequence[Answer]) -> Classes:
    labelled = [answer.labelled for answer in found if answer.labelled is not None]
    numbers = {number for episode in labelled for number in episode.classes.tolist()}
    sure = np.concatenate([episode.confidence for episode in labelled])
    right = np.concatenate([episode.truth == episode.told for episode in labelled])
    return Classes(
        names={number: _name(one, number) for number in numbers},
        scores=by_class(labelled),
        confused=most_confused(labelled, PAIRS),
        calibration=calibration(sure, right),
    )


def _name(one: _Subject, number: int) -> str:
    source = one.experiment.source
    return source.class_name(number) if source.task.labels_vary else f"label {number}"


def _values(one: _Subject, found: Sequence[Answer]) -> Values:
    truth, told = (
        np.concatenate([np.asarray(side, np.float64).ravel() for side in sides])
        for sides in zip(*((answer.truth, answer.values) for answer in found), strict=True)
    )
    spread = [np.asarray(answer.spread, np.float64).ravel() for answer in found if answer.spread is not None]
    return Values(
        truth=truth,
        told=told,
        by_episode=np.array([answer.score for answer in found]),
        coverage=coverage(truth, told, np.concatenate(spread)) if len(spread) == len(found) else (),
        fits=_fits(one),
    )


def _fits(one: _Subject) -> list[FunctionFit]:
    source = one.experiment.source
    drawn = source.task.is_curve and source.feature_shape == (1,)
    if not drawn or one.split != "meta-test" or isinstance(source.preprocessing, TablePreprocessing):
        return []  # episodes of tables hold scaled numbers, and pictures show those that users have
    return fits_of(one.learner, source, one.experiment.eval_spec, one.experiment.evaluation.seed, FITS)


def _examples(one: _Subject, found: Sequence[Answer]) -> list[Example]:
    name = one.experiment.quality
    title = f"{one.split}, task {{}}: {name} {{:.4f}}"
    return [
        example(answer, title.format(index, answer.score), lambda number: _name(one, number))
        for index, answer in enumerate(found[:EXAMPLES])
    ]


def _peak_bytes(device: torch.device) -> int | None:
    """Memory at most so far: of the GPU where that computes, else resident memory of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
