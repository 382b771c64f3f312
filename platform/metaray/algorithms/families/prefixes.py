"""Meta-parameters in parts: the network's, and what an algorithm brings, under a prefix of its own."""

from metaray.algorithms.context import Tensors
from metaray.errors import InputError


def join(network: Tensors, parts: dict[str, Tensors]) -> Tensors:
    """The network's parameters, together with those of each part under its prefix.

    Raises:
        InputError: If the network has a parameter with such a name.
    """
    for prefix in parts:
        taken = [name for name in network if name.startswith(prefix)]
        if taken:
            raise InputError(f"the network has a parameter {taken[0]!r}, but names in {prefix!r} are the algorithm's")
    return network | {prefix + name: value for prefix, part in parts.items() for name, value in part.items()}


def part(meta: Tensors, prefix: str) -> Tensors:
    """The parameters under a prefix, with the prefix removed."""
    return {name.removeprefix(prefix): value for name, value in meta.items() if name.startswith(prefix)}


def without(meta: Tensors, *prefixes: str) -> Tensors:
    """The parameters under none of the prefixes: the network's."""
    return {name: value for name, value in meta.items() if not name.startswith(prefixes)}
