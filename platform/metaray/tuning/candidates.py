"""Points of a search space: the whole grid, one drawn at random, or each once in a random order."""

import math
from collections.abc import Iterator, Mapping
from copy import deepcopy
from itertools import product
from typing import Any

import numpy as np

from metaray.errors import InputError
from metaray.tuning.space import Choice, Domain

MAX_GRID = 100_000


def combinations(space: Mapping[str, Domain], trials: int | None) -> list[dict[str, Any]]:
    """The points of a grid, in the order of the keys, with the last key varying fastest.

    They use all values of the finite domains, and as many points of one continuous domain as `trials` allow.

    Raises:
        InputError: If there are several continuous domains, or too few `trials`; a finite grid needs no `trials`.
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


def count(space: Mapping[str, Domain]) -> int | None:
    """The number of points of a space; None if a domain is continuous."""
    sizes = [domain.size for domain in space.values() if domain.size is not None]
    return math.prod(sizes) if len(sizes) == len(space) else None


def draw(space: Mapping[str, Domain], seed: int, number: int, attempt: int = 0) -> dict[str, Any]:
    """The random settings of trial `number`: a function of the space, in any order, `seed`, `number` and `attempt`."""
    rng = np.random.default_rng(_seed(seed, number, attempt))
    drawn = {key: space[key].sample(rng) for key in sorted(space)}
    return {key: drawn[key] for key in space}


def shuffled(space: Mapping[str, Domain], seed: int, number: int) -> Iterator[dict[str, Any]]:
    """Every point of a finite space once, in an order that depends on `seed` and `number`; none is held in memory."""
    total = count(space)
    assert total is not None
    rng = np.random.default_rng(_seed(seed, number, 0))
    place, stride = (int.from_bytes(rng.bytes(total.bit_length() // 8 + 8)) for _ in range(2))
    while math.gcd(stride, total) > 1:  # one without a common divisor leads to every place
        stride += 1
    for _ in range(total):
        place = (place + stride) % total
        yield _at(space, place)


def _at(space: Mapping[str, Domain], place: int) -> dict[str, Any]:
    """The point at a place of the grid of a finite space."""
    found = {}
    for key, domain in space.items():
        assert domain.size is not None
        place, part = divmod(place, domain.size)
        found[key] = domain.values[part] if isinstance(domain, Choice) else domain.low + part  # type: ignore[attr-defined]
    return deepcopy(found)


def _seed(seed: int, number: int, attempt: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(number, attempt) if attempt else (number,))
