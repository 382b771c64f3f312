"""Classes from which nothing can be learned: their images are blank, or all the same."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMED = 3


def uniform_classes(images: NDArray[Any], counts: Sequence[int], names: Sequence[str]) -> tuple[str, ...]:
    """A sentence about the classes whose every image is one plain colour, and one about those of equal images.

    Args:
        images: [examples, channels, ...], sorted by class; classes are read one by one.
        counts: examples per class.
        names: of the classes.
    """
    blank: list[str] = []
    equal: list[str] = []
    start = 0
    for count, name in zip(counts, names, strict=True):
        members = images[start : start + count]
        start += count
        planes = members.reshape(*members.shape[:2], -1) if members.ndim > 2 else members[:, None]
        if planes.shape[-1] > 1 and (planes == planes[..., :1]).all():
            blank.append(name)
        elif count > 1 and all(np.array_equal(members[0], other) for other in members[1:]):
            equal.append(name)
    return (
        *_sentence(blank, "holds only blank images (one value throughout)", "hold only blank images (one value each)"),
        *_sentence(equal, "holds only equal images", "hold only equal images"),
    )


def _sentence(names: Sequence[str], one: str, several: str) -> tuple[str, ...]:
    if not names:
        return ()
    if len(names) == 1:
        return (f"class {names[0]!r} {one}",)
    listed = ", ".join(repr(name) for name in names[:NAMED]) + (", ..." if len(names) > NAMED else "")
    return (f"{len(names)} classes {several}: {listed}",)
