"""Points of a search space: the whole grid, or one drawn at random."""

import math
from collections.abc import Mapping
from copy import deepcopy
from itertools import product
from typing import Any

import numpy as np

from metaray.errors import InputError
from metaray.tuning.space import Domain

MAX_GRID = 100_000


def combinations(space: Mapping[str, Domain], trials: int | None) -> list[dict[str, Any]]:
    """The grid, in the order of the keys, the last one varying fastest.

    All values of the finite domains, and of one continuous domain as many points as `trials` allow.

    Raises:
        InputError: for several continuous domains, or too few `trials`; a finite grid needs none.
    """
    sizes = {key: domain.size for key, domain in space.items() if domain.size is not None}
    continuous = [key for key in space if key not in sizes]
    count = math.prod(sizes.values())
    factors = " x ".join(f"{size} ({key})" for key, size in sizes.items()) or "1"
    if len(continuous) > 1:
        listed = ", ".join(continuous)
        raise InputError(f"a grid has at most one continuous field, not {listed}; write all but one as choice(...)")
    if continuous and trials is None:
        raise InputError(f"a grid over the continuous field {continuous[0]} needs --trials: {factors} for each point")
    if trials is not None and trials < count:
        leave = "" if continuous else ", or leave it out"
        raise InputError(f"the grid has {factors} = {count} points; give --trials {count} or more{leave}, not {trials}")
    points = trials // count if continuous and trials is not None else 1
    if points * count > MAX_GRID:
        raise InputError(f"the grid has {points * count} points, over {MAX_GRID}; give fewer values or trials")
    values = [domain.grid(domain.size or points) for domain in space.values()]
    return [deepcopy(dict(zip(space, row, strict=True))) for row in product(*values)]


def draw(space: Mapping[str, Domain], seed: int, number: int) -> dict[str, Any]:
    """The random settings of trial `number`: a function of the space, in any order, `seed` and `number`, both >= 0."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
    drawn = {key: space[key].sample(rng) for key in sorted(space)}
    return {key: drawn[key] for key in space}
