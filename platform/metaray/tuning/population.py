"""Population-based training (Jaderberg et al., 2017, arXiv:1711.09846, algorithm 1), one generation at a time.

Departure: members wait for one another at the end of each generation, where the paper's exploit whenever they are
ready. So each decision is a function of the scores and the seed alone, and a search that was interrupted goes on as it
would have. It costs the time in which the slowest member is waited for.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from metaray.tuning.trial import Objective

SHARE = 0.25
"""Share of the members: so many of the worst are replaced by copies of so many of the best (the paper takes 20 %)."""
FACTORS = (0.8, 1.25)
"""Factors on a copy's hyperparameter (the paper has 0.8 and 1.2; here 1.25 is the inverse of 0.8)."""


class Copy(NamedTuple):
    """A new member of the population: the parameters of another member, with its hyperparameter times a factor.

    Attributes:
        replaces: Number of the trial that the copy replaces.
        of: Number of the trial that is copied.
        factor: Factor on the hyperparameter of the copied trial.
    """

    replaces: int
    of: int
    factor: float


def next_generation(scores: Mapping[int, float], objective: Objective, seed: int, generation: int) -> list[Copy]:
    """Members that are replaced after a generation, each by a copy ("truncation selection", "perturb").

    Args:
        scores: Score of each member, by its trial's number. Members whose score is not finite, since they failed or
            diverged, are always replaced, unless all are so.
        objective: Objective that says which scores are better.
        seed: Seed of the search.
        generation: Number of the generation, from 0.
    """
    sign = -1 if objective.highest else 1
    ranked = sorted(scores, key=lambda n: (sign * scores[n] if math.isfinite(scores[n]) else math.inf, n))
    broken = [number for number in ranked if not math.isfinite(scores[number])]
    whole = len(ranked) - len(broken)
    count = max(1, int(SHARE * len(ranked)))
    if whole < 1 or len(ranked) < 2:
        return []
    replaced = ranked[-max(len(broken), min(count, len(ranked) // 2)) :]
    best = ranked[: min(count, len(ranked) - len(replaced))]
    rng = np.random.default_rng([seed, generation])
    found: dict[tuple[int, float], Copy] = {}
    for number in sorted(replaced):
        # Two copies of one member by one factor would train the same: once all pairs are taken, factors grow.
        power = 1 + len(found) // (len(best) * len(FACTORS))
        while True:
            of, factor = best[int(rng.integers(len(best)))], FACTORS[int(rng.integers(len(FACTORS)))] ** power
            if (of, factor) not in found:
                break
        found[of, factor] = Copy(number, of, factor)
    return list(found.values())
