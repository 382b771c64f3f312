"""Whether a new version takes the `@champion` alias: on meta-val alone, never on meta-test."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from metaray.errors import InputError
from metaray.records.estimate import Values, estimate, paired_difference
from metaray.tasks.score import score_named


@dataclass(frozen=True)
class Wish:
    """What is to be done with a learner after training.

    Attributes:
        register: Whether to register the learner.
        promote: Whether to make it @champion whatever the comparison says.
        link: Whether to keep its frozen encoder in the storage, once for all versions, instead of in the version.

    Raises:
        InputError: If the learner is to be promoted or linked without being registered.
    """

    register: bool = True
    promote: bool = False
    link: bool = False

    def __post_init__(self) -> None:
        if self.promote and not self.register:
            raise InputError("--promote gives a registered learner the alias @champion: leave out --no-register")
        if self.link and not self.register:
            raise InputError("--link-encoder is for a registered learner: leave out --no-register")


class Decision(NamedTuple):
    """Promote or not, and why, in a sentence."""

    promote: bool
    reason: str


class Champion(NamedTuple):
    """The present champion, with its scores on the challenger's meta-val episodes.

    Attributes:
        version: Registered version of the champion.
        scores: Score of each episode; None if the champion cannot be evaluated on them.
        problem: Reason why it cannot be evaluated.
    """

    version: str
    scores: Values | None
    problem: str = ""

    @property
    def is_finite(self) -> bool:
        """Whether the champion has a finite score to compare with."""
        return self.scores is not None and math.isfinite(estimate(self.scores).mean)


def decide(
    challenger: Values, champion: Champion | None, *, baselines: Mapping[str, Values], quality: str = "accuracy"
) -> Decision:
    """The promotion policy: a first champion must surpass every baseline, a later one the present champion.

    Scores are compared in pairs, and must differ by more than the 95% interval.

    Args:
        challenger: Score of the challenger in each meta-val episode.
        champion: The present champion; None if there is none.
        baselines: Scores of the untrained baselines on the same episodes, by name.
        quality: Name of the score, one of `metaray.tasks.score.SCORES`.
    """
    what = _what(quality)
    mean = estimate(challenger).mean
    if not math.isfinite(mean):
        return Decision(False, f"its {what} is {mean}, which is not finite")
    if champion is None:
        return _first(challenger, baselines, quality, "the first champion")
    if champion.scores is None:
        return Decision(False, f"not comparable with the champion, version {champion.version}: {champion.problem}")
    if not champion.is_finite:
        present = estimate(champion.scores).mean
        broken = f"{what} of version {champion.version} is {present}, which is not finite: now {mean:.4f}"
        return _first(challenger, baselines, quality, broken)
    return _against(challenger, champion.scores, f"version {champion.version}", quality)


def insisted(decision: Decision) -> Decision:
    """The decision changed to a promotion, because the user insists on it."""
    return decision if decision.promote else Decision(True, f"--promote said so, although {decision.reason}")


def _first(challenger: Values, baselines: Mapping[str, Values], quality: str, reason: str) -> Decision:
    """Where there is no champion to compare with."""
    for name, scores in baselines.items():
        found = _against(challenger, scores, name, quality)
        if not found.promote:
            return Decision(False, f"a first champion must surpass {name}: {found.reason}")
        reason += f", {found.reason}"
    return Decision(True, reason)


def _against(challenger: Values, other: Values, name: str, quality: str) -> Decision:
    what, score = _what(quality), score_named(quality)
    difference = paired_difference(challenger, other)
    reason = f"{what} difference to {name}: {difference.mean:+.4f} +- {difference.half_width:.4f}"
    if all(score.gain(end) > 0 for end in (difference.low, difference.high)):
        return Decision(True, reason)
    side = "above" if score.higher_is_better else "below"
    return Decision(False, f"{reason}, whose interval is not {side} zero")


def _what(quality: str) -> str:
    return "meta-val" if quality == "accuracy" else f"meta-val {quality}"
