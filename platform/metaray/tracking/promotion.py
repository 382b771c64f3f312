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
    """What is to become of a learner.

    Attributes:
        register: Put it into the registry.
        promote: Make it champion whatever the comparison says.
        link: Its frozen encoder lies in the storage, once for all versions that have it, and not in the version.

    Raises:
        InputError: If it is to be champion, or linked, without being registered.
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
    """The present champion, on the challenger's meta-val episodes.

    Attributes:
        version: Version of the registered model.
        scores: Scores by episode; None if it cannot be judged on them.
        problem: Why not.
    """

    version: str
    scores: Values | None
    problem: str = ""

    @property
    def is_finite(self) -> bool:
        """Whether it has a score to be compared with."""
        return self.scores is not None and math.isfinite(estimate(self.scores).mean)


def decide(
    challenger: Values, champion: Champion | None, *, baselines: Mapping[str, Values], quality: str = "accuracy"
) -> Decision:
    """The policy: a first champion surpasses every baseline, a later one the champion; paired, beyond the interval.

    Args:
        challenger: Its meta-val scores, by episode.
        champion: None if there is none.
        baselines: Scores of what needs no training, by name, on the same episodes.
        quality: What the scores are, one of `metaray.tasks.score.SCORES`.
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
    """The same where the user insists on promoting."""
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
