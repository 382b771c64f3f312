"""A store file seen through one of its split schemes."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaray.data.draws import Split
from metaray.data.gathering import QUARTER_TURNS
from metaray.data.ragged import shape_text
from metaray.data.remote import held
from metaray.data.servers import shown
from metaray.data.store_file import StoreFile
from metaray.data.verified import open_store
from metaray.errors import InputError, unknown

KEPT = 32
"""Number of pools that are cached; specs with ranges ask for one for each size."""


class Pools(NamedTuple):
    """Sets of base classes, from one of which a task draws its classes.

    Attributes:
        classes: Class ids of all sets, one set after the other.
        starts: Offsets [pools] of the sets.
        sizes: Sizes [pools] of the sets.
    """

    classes: NDArray[np.int64]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def each(self) -> list[NDArray[np.int64]]:
        """The class ids of each set."""
        return np.split(self.classes, self.starts[1:])

    def able(self, classes: int) -> "Pools":
        """The sets with at least this many classes."""
        if len(self.sizes) == 1 and self.sizes[0] >= classes:
            return self
        enough = self.sizes >= classes
        return self._replace(starts=self.starts[enough], sizes=self.sizes[enough])


@dataclass(frozen=True)
class OpenedStore:
    """A store file, seen through one split scheme.

    Attributes:
        file: The store.
        classes: Base class ids of each split.
        turns: Number of quarter turns of each class: 4 with rotations, else 1.
        places: Index [base classes] of each class among the classes of its split.
        groups: Group number [base classes] of each class; None if tasks may mix groups.
    """

    file: StoreFile
    classes: dict[Split, NDArray[np.int64]]
    turns: int
    places: NDArray[np.int64]
    groups: NDArray[np.int64] | None
    _pools: dict[tuple[Split, int], Pools] = field(default_factory=dict, init=False, repr=False, compare=False)

    def counts(self, classes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of examples of each of these base classes."""
        return self.file.offsets[classes + 1] - self.file.offsets[classes]

    def sizes(self, split: Split) -> NDArray[np.int64]:
        """The number of examples of each base class of `split`."""
        return self.counts(self.classes[split])

    def eligible(self, split: Split, examples: int) -> NDArray[np.int64]:
        """The base classes of `split` with at least `examples` examples."""
        return self.classes[split][self.sizes(split) >= examples]

    def pools(self, split: Split, examples: int) -> Pools:
        """Sets of eligible base classes: all in one set, or one set for each group."""
        found = self._pools.get((split, examples))
        if found is None:
            found = self._pools_of(split, examples)
            if len(self._pools) >= KEPT:
                self._pools.clear()
            self._pools[split, examples] = found
        return found

    def _pools_of(self, split: Split, examples: int) -> Pools:
        eligible = self.eligible(split, examples)
        if self.groups is None or not len(eligible):
            return Pools(eligible, np.zeros(1, dtype=np.int64), np.array([len(eligible)]))
        numbers = self.groups[eligible]
        order = numbers.argsort(kind="stable")
        starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
        return Pools(eligible[order], starts, np.diff(starts, append=len(eligible)))


def open_scheme(path: str, scheme: str, *, rotations: bool, within_groups: bool) -> OpenedStore:
    """Open a store file under one split scheme, to draw tasks from it.

    Args:
        path: Path or URI of the file.
        scheme: Name of the split scheme.
        rotations: Whether quarter turns count as classes.
        within_groups: Whether tasks take their classes from one group.

    Raises:
        InputError: If there is no such file or scheme, the file is damaged, images to be rotated are not square, or
            there are no groups.
    """
    with held(path) as local:
        file = open_store(local)
    if scheme not in file.meta.schemes:
        raise unknown(f"split scheme of {shown(path)}", scheme, file.meta.schemes)
    shape = file.meta.feature_shape
    if rotations and (len(shape) < 2 or None in shape or shape[-1] != shape[-2]):
        told = shape_text(shape) if None in shape else shape
        raise InputError(f"{shown(path)}: rotations need square images, but an example has the shape {told}")
    classes: dict[Split, NDArray[np.int64]] = {"meta-train": _ids(), "meta-val": _ids(), "meta-test": _ids()}
    classes |= {split: _ids(ids) for split, ids in file.meta.schemes[scheme].items()}
    places = np.zeros(len(file.meta.class_names), dtype=np.int64)
    for ids in classes.values():
        places[ids] = np.arange(len(ids))
    groups = _groups(file, shown(path)) if within_groups else None
    return OpenedStore(file, classes, QUARTER_TURNS if rotations else 1, places, groups)


def _groups(file: StoreFile, where: str) -> NDArray[np.int64]:
    if file.meta.groups is None:
        importer = file.meta.origin.get("importer", "")
        again = {
            "omniglot": "import it again: `metaray data import omniglot` now stores the alphabets",
            "images": "import it again with --depth 2, or with a column of groups beside the labels",
        }.get(importer, "import it again, with groups")
        raise InputError(
            f"{where}: within_groups is asked for, but the store does not say which classes belong together, as in "
            f"{file.meta.class_names[0]!r}; {again}"
        )
    return file.meta.groups.numbers


def _ids(ids: tuple[int, ...] = ()) -> NDArray[np.int64]:
    return np.array(ids, dtype=np.int64)
