"""What tells how good a learner is: accuracy, or in regression the mean squared error."""

import math
from typing import Literal

Quality = Literal["accuracy", "mse"]
"""Of accuracy more is better, of squared error less."""


def quality_of(target_size: int | None) -> Quality:
    """How tasks with targets of that size (None: classes) are scored."""
    return "accuracy" if target_size is None else "mse"


def surpasses(quality: Quality, score: float, best: float | None) -> bool:
    """Whether `score` is better than the `best` so far. The first always is, and anything is better than NaN."""
    if best is None or math.isnan(best):
        return best is None or not math.isnan(score)
    return score > best if quality == "accuracy" else score < best
