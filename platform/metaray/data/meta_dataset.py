"""How many examples each class of an episode gives in Meta-Dataset's sampling.

Triantafillou et al., "Meta-Dataset: a dataset of datasets for learning to learn from few examples", ICLR 2020,
arXiv:1903.03096, section 3.2 and appendix. With C the episode's classes, of |c| examples each:

    q   = min(most queries, min_c floor(|c| / 2))                               the same for all classes
    |S| = min(most support, sum_c ceil(b * min(most a class, |c| - q)))         b uniform in (0, 1]
    R_c = exp(a_c) |c| / sum_c' exp(a_c') |c'|                                  a_c uniform in [log 0.5, log 2)
    k_c = min(floor(R_c * (|S| - |C|)) + 1, |c| - q)

so that classes are imbalanced about as their sizes are, and each gives at least one example. As in the authors' code,
what a class adds to |S| is limited, and not k_c itself.
"""

from math import fsum, log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaray.data.draws import Draws

LOWEST, HIGHEST = log(0.5), log(2.0)
LEAST_EXAMPLES = 2
"""Fewest examples of a class: one for the support set and one for the query set."""


class ImbalancedSizes(NamedTuple):
    """Support examples of each class, k_c [N] int64, and query examples of every class, q."""

    shots: NDArray[np.int64]
    queries: int


def meta_dataset_sizes(
    counts: NDArray[np.int64], *, most_queries: int, most_a_class: int, most_support: int, draws: Draws
) -> ImbalancedSizes:
    """Draw the sizes of an episode by Meta-Dataset's sampling: b, then all a_c.

    Processors whose exponentials differ in the last bit give the same sizes but where R_c (|S| - |C|) lies within that
    of a whole number.

    Args:
        counts: Numbers |c| [N] of examples of the classes, each at least 2.
        most_queries: Largest number of queries of a class; 10 in the paper.
        most_a_class: Largest number that a class counts for in the size of the support set; 100 in the paper.
        most_support: Largest size of the support set, at least N; 500 in the paper.
        draws: Random numbers for b and a_c.
    """
    assert counts.min() >= LEAST_EXAMPLES and most_support >= len(counts), (counts, most_support)
    queries = min(most_queries, int(counts.min()) // 2)
    remaining = counts - queries
    # floor(b n) + 1 for b in [0, 1) is ceil(b n) for b in (0, 1].
    support = min(most_support, int(np.floor(draws.uniform(1) * np.minimum(most_a_class, remaining) + 1).sum()))
    weights = counts * np.exp(LOWEST + (HIGHEST - LOWEST) * draws.uniform(len(counts)))
    shots = np.floor(weights / fsum(weights) * (support - len(counts))).astype(np.int64) + 1
    return ImbalancedSizes(np.minimum(shots, remaining), queries)
