"""What kinds of task share whose targets are classes: predictions are logits, one a class."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from metaray.errors import InputError
from metaray.tasks.column import Column

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

MAP = "map"
"""The type of the column that holds the probabilities of all labels."""

TARGETS = (Column("label", "string", required=False),)
PREDICTIONS = (
    Column("label", "string"),
    Column("probability", "double"),
    Column("probabilities", "string"),
    Column("distribution", MAP),
)


def cross_entropy(output: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
    """Mean cross-entropy of logits [n, classes] for labels [n], weighted if asked."""
    from torch.nn import functional

    if weights is None:
        return functional.cross_entropy(output, y)
    each = functional.cross_entropy(output, y, reduction="none")
    return (weights * each).sum() / weights.sum()


def one_hot(y: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """[n, classes] of labels [n]."""
    from torch.nn import functional

    return functional.one_hot(y, classes).to(dtype)


def class_means(embedding: Tensor, y: Tensor, classes: int) -> Tensor:
    """[classes, E] of an embedded set [n, E]; classes may differ in size."""
    belongs = one_hot(y, classes, embedding.dtype)
    return (belongs.T @ embedding) / belongs.sum(dim=0)[:, None]


def nearest_members(distances: Tensor, y: Tensor, classes: int) -> Tensor:
    """For each class, minus the distance to its nearest member: [n, classes] of distances [n, m]."""
    import torch
    from torch.nn import functional

    other = functional.one_hot(y, classes) == 0
    return -distances[:, :, None].masked_fill(other[None], torch.inf).amin(dim=1)


def softmax(output: Tensor) -> NDArray[np.float32]:
    """Probabilities [n, classes] of logits."""
    found: NDArray[np.float32] = output.softmax(dim=-1).numpy()
    return found


def most_probable(output: Tensor, classes: Sequence[Hashable]) -> list[Hashable]:
    """The label of the highest probability, of each row of logits."""
    return [classes[i] for i in softmax(output).argmax(axis=1)]


def no_values() -> InputError:
    """What is raised where values are asked for."""
    return InputError("this learner tells classes apart: use predict or predict_proba, not predict_values")
