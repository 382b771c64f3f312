"""The labels of a support set, in whatever a user holds them, as plain Python values that can be told apart."""

import unicodedata
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metaray.containers import described, opened, opened_whole
from metaray.errors import InputError


def plain_labels(y: Any) -> list[Hashable]:
    """Labels as Python values: numbers and elements of tensors and arrays are converted, the rest is unchanged.

    Args:
        y: Labels of n examples: a list, a tensor or array [n] or [n, 1], a column, or an iterator.

    Raises:
        InputError: If a label is missing (None, NaN, NA), cannot be compared, or looks like another one of another type
            (the message names it); or if `y` is a matrix of one-hot rows or probabilities, or a single string.
    """
    given = opened_whole(y, "y")
    if isinstance(given, np.ndarray):
        given = _column(given)
    labels = [plain_label(label, f"label {place}") for place, label in enumerate(given)]
    _check_distinct(labels)
    return labels


def classes_of(labels: Sequence[Hashable]) -> tuple[tuple[Hashable, ...], Tensor]:
    """Classes of a support set in order of first appearance, and the index of each label's class [n], int64.

    Args:
        labels: Labels of the n examples, as `plain_labels` returns them.

    Raises:
        InputError: If there are too few classes.
    """
    classes = tuple(dict.fromkeys(labels))
    if len(classes) < 2:
        raise InputError(f"the support set has {len(classes)} class; a task needs at least 2")
    places = {label: place for place, label in enumerate(classes)}
    return classes, torch.tensor([places[label] for label in labels])


def further_labels(labels: Sequence[Hashable], classes: Sequence[Hashable]) -> tuple[tuple[Hashable, ...], Tensor]:
    """Classes of an extended task, and the index of each further label's class [n], int64.

    Args:
        labels: Labels of the further examples, as `plain_labels` returns them.
        classes: Classes of the task so far; new classes come after them in the order of their first appearance.

    Raises:
        InputError: If there are no labels, or one has another type than those of the task, or cannot be told from one
            of them.
    """
    types = {type(one) for one in classes}
    for place, label in enumerate(require_labels(labels)):
        if type(label) not in types:
            words = " or ".join(sorted(one.__name__ for one in types))
            raise InputError(
                f"label {place} is {label!r} ({type(label).__name__}), but labels of this task are {words}, such as "
                f"{classes[0]!r}; write them in the same way"
            )
    _check_distinct([*classes, *labels])
    grown = tuple(dict.fromkeys((*classes, *labels)))
    places = {label: place for place, label in enumerate(grown)}
    return grown, torch.tensor([places[label] for label in labels])


def require_labels(labels: Sequence[Hashable]) -> Sequence[Hashable]:
    """Check that there is at least one label, and return the labels.

    Raises:
        InputError: If there are no labels.
    """
    if not labels:
        raise InputError("y holds no labels; give at least one further example")
    return labels


def plain_label(label: Any, where: str) -> Hashable:
    """One label as a Python value; `where` names it in messages.

    Raises:
        InputError: If the label is missing or cannot be compared with others.
    """
    if isinstance(label, tuple):
        return tuple(plain_label(part, where) for part in label)
    found = _plain(label, where)
    if found is None or _is_nan(found):
        raise InputError(f"{where} is missing ({label!r}); leave examples without a label out")
    try:
        hash(found)
    except TypeError:
        raise InputError(f"{where} is {described(label)}, which can't be compared; {_ONE_EACH}") from None
    hashing: object = type(found).__hash__
    if hashing is object.__hash__:
        raise InputError(f"{where} is {described(label)}, which only equals itself; {_ONE_EACH}")
    value: Hashable = found
    return value


_ONE_EACH = "give one label an example, such as a string or an integer (of one-hot rows y.argmax(1))"


def _plain(label: Any, where: str) -> Any:
    """A label of numpy, torch or arrow, which compare in ways of their own, as Python's own; others as they are."""
    if isinstance(label, np.generic):
        label = np.asarray(label)
    if not (hasattr(type(label), "__array__") or hasattr(type(label), "as_py")):
        return label
    found = opened(label, where)
    if not isinstance(found, np.ndarray):
        return found
    if found.size != 1 or found.ndim > 1:
        raise InputError(f"{where} is {described(label)}; {_ONE_EACH}")
    value = found.item()
    # Dates in nanoseconds would become integers.
    return found.reshape(())[()] if found.dtype.kind in "mM" and isinstance(value, int) else value


def _is_nan(value: Any) -> bool:
    try:
        return bool(value != value)
    except (TypeError, ValueError):  # pandas' NA says neither yes nor no
        return True


def _column(array: np.ndarray[Any, Any]) -> list[Any]:
    """The elements of [n] or [n, 1]."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise InputError(f"y is an array of shape {list(array.shape)} and type {array.dtype}; {_ONE_EACH}")
    return list(array)


def _check_distinct(labels: list[Hashable]) -> None:
    """Refuse labels that Python takes for one (1, 1.0 and True), and different ones that read alike (1 and "1")."""
    by_value: dict[Hashable, Hashable] = {}
    by_text: dict[str, Hashable] = {}
    for label in labels:
        for other in (
            by_value.setdefault(label, label),
            by_text.setdefault(unicodedata.normalize("NFC", str(label)), label),
        ):
            if type(other) is not type(label) or other != label:
                kinds = f"{type(other).__name__} and {type(label).__name__}"
                raise InputError(
                    f"y holds both {other!r} and {label!r} ({kinds}), which can't be told apart; write each class "
                    "in one way"
                )
