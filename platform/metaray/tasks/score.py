"""What tells how good a learner is, and which of two scores is the better one: decided here and nowhere else."""

import math
from collections.abc import Iterable
from typing import Annotated, NamedTuple

from pydantic import AfterValidator

from metaray.errors import unknown


class Score(NamedTuple):
    """A score by which predictions for one task are judged.

    Attributes:
        name: Name of the score in results, metrics and tags.
        higher_is_better: Whether a higher value is better.
    """

    name: str
    higher_is_better: bool

    def surpasses(self, score: float, best: float | None) -> bool:
        """Whether `score` is better than the `best` so far. The first always is, and anything is better than NaN."""
        if best is None or math.isnan(best):
            return best is None or not math.isnan(score)
        return score > best if self.higher_is_better else score < best

    def gain(self, difference: float) -> float:
        """The difference of two scores, with its sign chosen so that positive is an improvement."""
        return difference if self.higher_is_better else -difference

    def best(self, scores: Iterable[float]) -> int:
        """The place of the best of several finite scores, the first of equals."""
        found = list(scores)
        return found.index(max(found, key=self.gain))


SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Score("accuracy", True),
        Score("balanced_accuracy", True),
        Score("f1", True),
        Score("auroc", True),
        Score("average_precision", True),
        Score("hit_rate", True),
        Score("ndcg", True),
        Score("mse", False),
        Score("rmse", False),
        Score("mae", False),
        Score("nll", False),
    )
}
"""All scores that results may hold, by name; task kinds of the user's own use these."""


def _known(name: str) -> str:
    if name not in SCORES:
        raise ValueError(str(unknown("score", name, SCORES)))
    return name


ScoreName = Annotated[str, AfterValidator(_known)]


def score_named(name: str) -> Score:
    """The score with a given name.

    Raises:
        InputError: If there is no such score.
    """
    if name not in SCORES:
        raise unknown("score", name, SCORES)
    return SCORES[name]
