"""Groups of classes: alphabets of characters, superclasses of things, domains."""

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from metaray.config import Config
from metaray.data.draws import Split


class ClassGroups(Config):
    """The group of each class of a store.

    Attributes:
        names: Names of the groups, by class id.
        fingerprint: SHA-256 (hex) over the names.
    """

    names: tuple[str, ...]
    fingerprint: str

    @classmethod
    def of(cls, names: Sequence[str]) -> "ClassGroups":
        """The groups of classes 0, 1, ..."""
        return cls(names=tuple(names), fingerprint=_fingerprint(names))

    @model_validator(mode="after")
    def _is_whole(self) -> "ClassGroups":
        if self.fingerprint != _fingerprint(self.names):
            raise ValueError("damaged: the groups of its classes don't match their fingerprint; import the data again")
        return self

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Number [classes] of each class's group, in the order of the names."""
        return np.unique(np.array(self.names), return_inverse=True)[1].astype(np.int64)


def folder_of(class_name: str) -> str:
    """Group in a class name such as "Greek/character03": everything before the last slash."""
    return class_name.rpartition("/")[0]


def sizes_of(groups: Sequence[str], classes: Sequence[int]) -> dict[str, int]:
    """Number of these classes in each group, in the order of the groups' names."""
    found: dict[str, int] = {}
    for class_id in classes:
        found[groups[class_id]] = found.get(groups[class_id], 0) + 1
    return dict(sorted(found.items()))


def across_splits(groups: Sequence[str], splits: Mapping[Split, Sequence[int]]) -> list[str]:
    """Names of the groups with classes in more than one meta-split."""
    parts = [set(sizes_of(groups, ids)) for ids in splits.values()]
    return sorted({name for i, part in enumerate(parts) for other in parts[:i] for name in part & other})


def _fingerprint(names: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()
