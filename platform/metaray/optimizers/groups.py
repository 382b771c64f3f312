"""Parameter groups of the outer optimiser by name pattern: a rate and a weight decay of their own."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase

from pydantic import Field

from metaray.config import Config
from metaray.errors import InputError


class Group(Config):
    """Settings for the meta-parameters whose names match a pattern.

    Attributes:
        outer_lr: Peak learning rate, which follows the optimiser's schedule; None takes the optimiser's own.
        weight_decay: Weight decay; None takes the optimiser's own.
    """

    outer_lr: float | None = Field(default=None, ge=0)
    weight_decay: float | None = Field(default=None, ge=0)


def divided(groups: Mapping[str, Group], names: Iterable[str]) -> list[tuple[Group, list[str]]]:
    """Parameter names by the group whose pattern decides for them; first those that match no pattern, if any.

    If several patterns (`fnmatch`) match a name, the longest one decides, since JSON does not keep their order.

    Raises:
        InputError: If a pattern matches no name; the message has the nearest names.
    """
    names = list(names)
    for pattern in groups:
        if not any(fnmatchcase(name, pattern) for name in names):
            near = get_close_matches(pattern, names, n=3, cutoff=0.4)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise InputError(
                f"optimizer.groups: pattern {pattern!r} fits no parameter.{hint} Parameters: {', '.join(names)}"
            )
    found: dict[str | None, list[str]] = {None: []} | {pattern: [] for pattern in sorted(groups)}
    for name in names:
        fitting = [pattern for pattern in groups if fnmatchcase(name, pattern)]
        found[max(fitting, key=lambda pattern: (len(pattern), pattern), default=None)].append(name)
    return [(Group() if pattern is None else groups[pattern], fit) for pattern, fit in found.items() if fit]
