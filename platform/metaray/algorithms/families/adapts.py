"""What adapts to a task: the parameters of a network that inner steps change, by patterns of their names."""

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

from metaray.data.names import some
from metaray.errors import InputError
from metaray.models.model import second_names
from metaray.models.patterns import SomePatterns

EVERYTHING = ("*",)
NEAR, LISTED = 3, 12


Adapts = SomePatterns
"""Patterns (`fnmatch`), such as `head.*` and `*.lora_*`; the parameters that match one of them adapt."""


def adapting(adapts: Sequence[str], names: list[str], network: nn.Module) -> list[str]:
    """The parameter names that match one of the patterns, in the given order.

    Args:
        adapts: Patterns of the parameters that adapt.
        names: Names of the parameters that could adapt, without frozen ones.
        network: Network, whose frozen parameters are named in the message if a pattern matches only these.

    Raises:
        InputError: If a pattern matches no name; the message has the nearest names.
    """
    if tuple(adapts) == EVERYTHING:
        return names
    for pattern in adapts:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise _idle(pattern, names, network)
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in adapts)]


def _idle(pattern: str, names: list[str], network: nn.Module) -> InputError:
    """What is wrong with a pattern that nothing fits."""
    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    stiff = [name for name in frozen if fnmatchcase(name, pattern)]
    if stiff:
        return InputError(
            f"adapts {pattern!r} fits frozen parameters of the network alone: {some(stiff, LISTED)}. Let them require "
            f"grad, or name others of: {_shown(names)}"
        )
    for name, own in second_names(network).items():
        if fnmatchcase(name, pattern):
            return InputError(f"adapts {pattern!r} fits {name!r}, which is {own!r} under another name: name that")
    near = get_close_matches(pattern, names, n=NEAR, cutoff=0.4)
    hint = f" Near it are {', '.join(near)}." if near else ""
    return InputError(f"adapts {pattern!r} fits no parameter that could adapt.{hint} Parameters: {_shown(names)}")


def _shown(names: Collection[str]) -> str:
    return some(list(names), LISTED) or "none"
