"""Whether a new version takes the `@champion` alias: on meta-val alone, never on meta-test."""

import math
from typing import NamedTuple

from metaray.training.evaluation import Values, estimate, paired_difference
from metaray.training.quality import Quality


class Decision(NamedTuple):
    """Promote or not, and why, in a sentence."""

    promote: bool
    reason: str


class Champion(NamedTuple):
    """The present champion, on the challenger's meta-val episodes.

    Attributes:
        version: of the registered model.
        scores: by episode; None if it cannot be judged on them.
        problem: why not.
    """

    version: str
    scores: Values | None
    problem: str = ""


def decide(challenger: Values, champion: Champion | None, *, quality: Quality = "accuracy") -> Decision:
    """The policy.

    Args:
        challenger: its meta-val scores, by episode.
        champion: None if there is none.
        quality: what the scores are; of squared error less is better.
    """
    what, side = ("meta-val", "above") if quality == "accuracy" else ("meta-val mse", "below")
    mean = estimate(challenger).mean
    if not math.isfinite(mean):
        return Decision(False, f"its {what} is {mean}, which is not finite")
    if champion is None:
        return Decision(True, "the first version")
    if champion.scores is None:
        return Decision(False, f"not comparable with the champion, version {champion.version}: {champion.problem}")
    present = estimate(champion.scores).mean
    if not math.isfinite(present):
        return Decision(True, f"{what} of version {champion.version} is {present}, which is not finite: now {mean:.4f}")
    difference = paired_difference(challenger, champion.scores)
    against = f"{what} difference to version {champion.version}: {difference.mean:+.4f} +- {difference.half_width:.4f}"
    if difference.low > 0 if quality == "accuracy" else difference.high < 0:
        return Decision(True, against)
    return Decision(False, f"{against}, whose interval is not {side} zero")
