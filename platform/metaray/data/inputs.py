"""Inputs that are one array or a flat dict of named ones, with the same leading axes; arrays of numpy, or tensors."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def mapped(function: Callable[[Any], Any], x: Any) -> Any:
    """A function of an array, applied to each of a dict."""
    return {name: function(part) for name, part in x.items()} if isinstance(x, dict) else function(x)


def take(x: Any, rows: Any) -> Any:
    """Some of the inputs: whatever can be an index, of the leading axes."""
    return mapped(lambda part: part[rows], x)


def parts_of(x: Any) -> list[Any]:
    """All arrays of the inputs."""
    return list(x.values()) if isinstance(x, dict) else [x]


def shapes_of(x: Any) -> tuple[tuple[int, ...], ...]:
    """The shapes of all arrays; inputs of equal shapes can be stacked."""
    return tuple(tuple(part.shape) for part in parts_of(x))


def stacked(inputs: Sequence[Any]) -> Any:
    """Inputs of several tasks, stacked along a new leading axis.

    Raises:
        ValueError: If there are no inputs, or their shapes differ.
    """
    if inputs and isinstance(inputs[0], dict):
        return {name: np.stack([one[name] for one in inputs]) for name in inputs[0]}
    return np.stack(list(inputs))
