"""Classes from which little can be learned: their images are blank or nearly so, or all the same."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaray.data.ragged import Ragged

NAMED = 3
# Of 255 levels. Scans of 12 bits that are taken for 16 span no more.
FAINT = 16


def uniform_classes(images: NDArray[Any] | Ragged, counts: Sequence[int], names: Sequence[str]) -> tuple[str, ...]:
    """A sentence each about the classes of which every image is one plain colour, is nearly one, or is the same.

    Args:
        images: [examples, channels, ...], sorted by class; classes are read one by one. Of ragged examples nothing is
            said.
        counts: Examples per class.
        names: Names of the classes.
    """
    if isinstance(images, Ragged):
        return ()
    blank: list[str] = []
    faint: list[str] = []
    equal: list[str] = []
    start = 0
    for count, name in zip(counts, names, strict=True):
        members = images[start : start + count]
        start += count
        planes = members.reshape(*members.shape[:2], -1) if members.ndim > 2 else members[:, None]
        low, high = planes.min(axis=-1), planes.max(axis=-1)
        if planes.shape[-1] > 1 and np.array_equal(low, high):
            blank.append(name)
        elif planes.shape[-1] > 1 and images.dtype == np.uint8 and (high - low).max() <= FAINT:
            faint.append(name)
        elif count > 1 and all(np.array_equal(members[0], other) for other in members[1:]):
            equal.append(name)
    return (
        *_sentence(blank, "holds only blank images (one value throughout)", "hold only blank images (one value each)"),
        *_sentence(
            faint,
            f"holds only faint images (of 255 levels they span {FAINT} at most)",
            f"hold only faint images (of 255 levels they span {FAINT} at most)",
        ),
        *_sentence(equal, "holds only equal images", "hold only equal images"),
    )


def _sentence(names: Sequence[str], one: str, several: str) -> tuple[str, ...]:
    if not names:
        return ()
    if len(names) == 1:
        return (f"class {names[0]!r} {one}",)
    listed = ", ".join(repr(name) for name in names[:NAMED]) + (", ..." if len(names) > NAMED else "")
    return (f"{len(names)} classes {several}: {listed}",)
