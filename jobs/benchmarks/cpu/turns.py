"""Alternating turns: whatever slows the machine down for a while slows all that is compared."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Turn = Callable[[], float]
"""Works for a moment, and returns what one unit of its work took, or the rate at which it went."""
LEAST_TURNS = 3
SLOW_SHARE, SLOW_S = 0.08, 2.0
"""Whose turn takes more than that share of the time for all, and so many seconds, has one after the first round."""


def alternated(contenders: Mapping[str, Turn], *, turns: int, seconds: float) -> dict[str, list[float]]:
    """What each found in each of its turns; a first round, which warms up, is left out.

    Args:
        contenders: by name; a round begins with another one each time.
        turns: at most.
        seconds: after which no further round begins, once there are LEAST_TURNS.
    """
    found: dict[str, list[float]] = {name: [] for name in contenders}
    slow: set[str] = set()
    began = time.perf_counter()
    for number in range(turns + 1):
        if number > LEAST_TURNS and time.perf_counter() - began > seconds:
            break
        names = [name for name in contenders if number <= 1 or name not in slow]
        if not names:
            break
        for name in names[number % len(names) :] + names[: number % len(names)]:
            started = time.perf_counter()
            value = contenders[name]()
            if time.perf_counter() - started > max(SLOW_S, SLOW_SHARE * seconds):
                slow.add(name)
            if number:
                found[name].append(value)
    return found


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Turn by turn, as far as both go."""
    return [a / b for a, b in zip(over, under, strict=False)]


def quartiles(values: Sequence[float]) -> list[float]:
    """The lower one, the median and the upper one."""
    return [float(value) for value in np.percentile(values, [25, 50, 75])]


def fastest(found: Mapping[str, Sequence[float]]) -> str:
    """The name whose median is the smallest."""
    return min(found, key=lambda name: statistics.median(found[name]))


def rounded(tree: Any) -> Any:
    """With numbers of six digits, as records keep them."""
    if isinstance(tree, dict):
        return {name: rounded(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [rounded(value) for value in tree]
    return float(f"{tree:.6g}") if isinstance(tree, float) else tree
