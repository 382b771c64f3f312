"""Support sets that grow: what is kept of the examples of a task, and how what is kept of further ones joins it.

A summary is a flat dict of tensors, enough to adapt to the examples that it is of. Names say how two are joined:

    rows:NAME        [n, ...] the examples of the one, then those of the other
    class:NAME       [N, ...] added class by class; classes that came later begin at 0
    sum:NAME         [...] added
    statistics:NAME  of batch norm, with which the examples were embedded: those of the first support stay
"""

import torch

from metaray.algorithms.context import Tensors

STATISTICS = "statistics:"
ROWS, OF_CLASS, SUM = "rows:", "class:", "sum:"


def joined(before: Tensors, further: Tensors) -> Tensors:
    """The summary of two sets of examples, neither of which is modified.

    Args:
        before: Summary of the first examples.
        further: Summary of the other examples, of as many classes or more, the first of which are the same.
    """
    return {name: _joined(name, before[name], further[name]) for name in before}


def fixed_statistics(adapted: Tensors) -> Tensors:
    """Batch norm statistics that an adapted task's support set was normalised with; empty if there are none."""
    return {name: value for name, value in adapted.items() if name.startswith(STATISTICS)}


def padded(tensor: torch.Tensor, size: int) -> torch.Tensor:
    """The tensor with rows of zeros appended, so that it has `size` rows."""
    return torch.cat([tensor, tensor.new_zeros(size - len(tensor), *tensor.shape[1:])])


def _joined(name: str, before: torch.Tensor, further: torch.Tensor) -> torch.Tensor:
    if name.startswith(ROWS):
        return torch.cat([before, further])
    if name.startswith(OF_CLASS):
        return padded(before, len(further)) + further
    if name.startswith(SUM):
        return before + further
    return before
