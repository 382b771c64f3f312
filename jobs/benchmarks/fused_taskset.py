"""A stand-in for learn2learn's fused taskset, which builds with old Cython alone: the published algorithm in Python.

learn2learn 0.2.0 (Arnold et al., arXiv:2008.12284; https://learn2learn.net/docs/learn2learn.data) samples a task as a
list of descriptions, one an example, each with the transforms that load and relabel it: `FusedNWaysKShots` draws
classes and examples with `random.sample`; `LoadData`, `RemapLabels` and `ConsecutiveLabels` follow, and torch's default
collation. Compiled, the lists are made somewhat faster; what is called for each example stays Python there, too.
"""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import default_collate

Description = tuple[int, list[Callable[[Any], Any]]]
"""An example's place, and what is done to it in this order."""


class FusedTaskset:
    """Tasks of N classes, K examples each.

    Args:
        images: [examples, *feature].
        labels: [examples].
        ways: N.
        per_class: K, of support and query together.
        rotations: whether quarter turns are classes: an example is turned when it is loaded.
    """

    def __init__(
        self, images: NDArray[Any], labels: NDArray[np.int64], *, ways: int, per_class: int, rotations: bool
    ) -> None:
        self._images, self._turns = torch.from_numpy(np.array(images)), 4 if rotations else 1
        self._label_of = [label * self._turns + turn for label in labels.tolist() for turn in range(self._turns)]
        self._places: dict[int, list[int]] = {}
        for place, label in enumerate(self._label_of):
            self._places.setdefault(label, []).append(place)
        self._labels, self._ways, self._per_class = list(self._places), ways, per_class

    def sample(self) -> Any:
        """Inputs [N * K, *feature] and labels [N * K] of one task."""
        task: list[Description] = []
        for label in random.sample(self._labels, self._ways):
            task += [(place, []) for place in random.sample(self._places[label], self._per_class)]
        for transform in (self._load, self._remap, self._consecutive):
            task = transform(task)
        examples = []
        for place, transforms in task:
            data: Any = place
            for transform_one in transforms:
                data = transform_one(data)
            examples.append(data)
        return default_collate(examples)

    def _load(self, task: list[Description]) -> list[Description]:
        for _, transforms in task:
            transforms.append(self._example)
        return task

    def _example(self, place: int) -> tuple[torch.Tensor, int]:
        example, turn = divmod(place, self._turns)
        image = self._images[example]
        return (torch.rot90(image, turn, (-2, -1)) if turn else image), self._label_of[place]

    def _remap(self, task: list[Description]) -> list[Description]:
        labels = list({self._label_of[place] for place, _ in task})
        random.shuffle(labels)

        def remapped(data: tuple[torch.Tensor, int]) -> tuple[torch.Tensor, int]:
            return data[0], labels.index(data[1])

        for _, transforms in task:
            transforms.append(remapped)
        return task

    def _consecutive(self, task: list[Description]) -> list[Description]:
        return sorted(task, key=lambda one: self._label_of[one[0]])
