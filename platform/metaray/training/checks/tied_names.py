"""Whether patterns of an algorithm mean parameters by names that these have besides their own."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from torch import nn

from metaray.algorithms.algorithm import Algorithm
from metaray.errors import InputError
from metaray.models.model import second_names

FIELDS = ("adapts", "head", "inner_lr")
ALL = "*"


def check_tied_names(algorithm: Algorithm, network: nn.Module) -> None:
    """Refuse patterns that fit a tied parameter by a second name, while it goes by the first, which they don't fit.

    Args:
        algorithm: Algorithm whose patterns they are.
        network: The network that has the parameters.

    Raises:
        InputError: Naming the field, the pattern, and both names.
    """
    tied = second_names(network)
    for field in FIELDS if tied else ():
        patterns = _patterns(getattr(algorithm, field, ()))
        for name, own in tied.items():
            fitting = [pattern for pattern in patterns if fnmatchcase(name, pattern)]
            if fitting and not any(fnmatchcase(own, pattern) for pattern in patterns):
                raise InputError(
                    f"{field} {fitting[0]!r} fits {name!r}, but that is {own!r} under another name, and goes by this "
                    f"one: name {own!r} as well, or leave {name!r} out"
                )


def _patterns(value: object) -> list[str]:
    """The patterns that a field holds; that for all the rest says nothing of any parameter."""
    if isinstance(value, str):
        return [value]
    named = value if isinstance(value, Mapping | tuple | list) else ()
    found: Iterable[object] = named
    patterns = [one for one in found if isinstance(one, str)]
    return [one for one in patterns if one != ALL] if isinstance(value, Mapping) else patterns
