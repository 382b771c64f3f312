"""Which classes a learner tells well, and which it takes for one another."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Z = 1.959964


class Labelled(NamedTuple):
    """One episode's queries.

    Attributes:
        classes: [N] what each label stands for, by its number in the source.
        truth: [n] the right label of each query, 0 .. N-1.
        told: [n] the predicted label.
        confidence: [n] the probability of that label.
    """

    classes: NDArray[np.int64]
    truth: NDArray[np.int64]
    told: NDArray[np.int64]
    confidence: NDArray[np.float64]


class ClassScore(NamedTuple):
    """How often queries of a class were recognised.

    Attributes:
        number: Number of the class.
        right: Number of queries that were recognised.
        asked: Number of queries.
    """

    number: int
    right: int
    asked: int

    @property
    def share(self) -> float:
        """Share of the queries that were recognised."""
        return self.right / self.asked


class Confusion(NamedTuple):
    """How often one class was taken for another.

    Attributes:
        truth: Number of the right class.
        told: Number of the other class.
        mistakes: Number of queries of `truth` that were taken for `told`.
        asked: Number of queries of `truth` in episodes that had both.
    """

    truth: int
    told: int
    mistakes: int
    asked: int

    @property
    def share(self) -> float:
        """Share of the queries that were mistaken."""
        return self.mistakes / self.asked


def by_class(episodes: Iterable[Labelled]) -> list[ClassScore]:
    """Each class that was asked for, the worst first; of equals the one that was asked more often."""
    right: dict[int, int] = {}
    asked: dict[int, int] = {}
    for one in episodes:
        for number, well in zip(one.classes[one.truth].tolist(), (one.truth == one.told).tolist(), strict=True):
            asked[number] = asked.get(number, 0) + 1
            right[number] = right.get(number, 0) + well
    found = [ClassScore(number, right[number], count) for number, count in asked.items()]
    return sorted(found, key=lambda score: (score.share, -score.asked, score.number))


def most_confused(episodes: Sequence[Labelled], count: int) -> list[Confusion]:
    """The pairs of classes that are confused most, in one direction.

    Classes meet in few episodes, so that two mistakes out of two say less than nine out of ten. They are ordered by the
    lower end of Wilson's 95% interval (1927) of the share that is mistaken.
    """
    mistakes: dict[tuple[int, int], int] = {}
    for one in episodes:
        for truth, told in zip(one.classes[one.truth].tolist(), one.classes[one.told].tolist(), strict=True):
            if truth != told:
                mistakes[truth, told] = mistakes.get((truth, told), 0) + 1
    asked = dict.fromkeys(mistakes, 0)
    for one in episodes:
        queries = np.bincount(one.truth, minlength=len(one.classes)).tolist()
        numbers = one.classes.tolist()
        for truth, many in zip(numbers, queries, strict=True):
            for told in numbers:
                if (truth, told) in asked:
                    asked[truth, told] += many
    found = [Confusion(*pair, number, asked[pair]) for pair, number in mistakes.items()]
    return sorted(found, key=lambda one: (-_at_least(one), -one.mistakes, one.truth, one.told))[:count]


def _at_least(one: Confusion) -> float:
    """The lower end of Wilson's interval."""
    n, share = one.asked, one.share
    middle = share + Z * Z / (2 * n)
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return (middle - half) / (1 + Z * Z / n)
