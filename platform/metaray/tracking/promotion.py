"""Whether a new version takes the `@champion` alias: on meta-val alone, never on meta-test."""

from typing import NamedTuple

from metaray.training.evaluation import Estimate
from metaray.training.quality import Quality


class Decision(NamedTuple):
    """Promote or not, and why, in a sentence."""

    promote: bool
    reason: str


def decide(
    champion: str | None, difference: Estimate | None, problem: str = "", *, quality: Quality = "accuracy"
) -> Decision:
    """The policy.

    Args:
        champion: the present one's version, or None.
        difference: of meta-val scores, challenger minus champion, paired by episode; None if it cannot be measured.
        problem: why not.
        quality: what the scores are; of squared error less is better.
    """
    if champion is None:
        return Decision(True, "the first version")
    if difference is None:
        return Decision(False, f"not comparable with the champion, version {champion}: {problem}")
    what, side = ("meta-val", "above") if quality == "accuracy" else ("meta-val mse", "below")
    against = f"{what} difference to version {champion}: {difference.mean:+.4f} +- {difference.half_width:.4f}"
    if difference.low > 0 if quality == "accuracy" else difference.high < 0:
        return Decision(True, against)
    return Decision(False, f"{against}, whose interval is not {side} zero")
