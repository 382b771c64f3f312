"""Inputs as algorithms see them: a tensor [n, *feature], or a flat dict of named tensors that begin with the same axes.

Whatever works on one tensor of inputs works on all of a dict: these functions do so.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from metaray.data.inputs import mapped as mapped
from metaray.data.inputs import parts_of
from metaray.data.inputs import take as take
from metaray.errors import InputError

Inputs = Any
"""A tensor or a flat dict of named tensors. No union, so that what takes tensors alone may say so."""

NOT_TAKEN = (RuntimeError, TypeError, ValueError, LookupError, AttributeError)
"""Exceptions that networks raise on unsuitable inputs; an index outside a vocabulary raises a LookupError."""


def tensors_of(x: Inputs) -> list[Tensor]:
    """All tensors of the inputs."""
    return parts_of(x)


def count(x: Inputs) -> int:
    """The number of inputs."""
    return len(tensors_of(x)[0])


def device_of(x: Inputs) -> torch.device:
    """The device of the inputs."""
    found: torch.device = tensors_of(x)[0].device
    return found


def to_dtype(x: Inputs, dtype: torch.dtype) -> Inputs:
    """Convert floating-point tensors to another precision; masks and token ids are unchanged."""
    return mapped(lambda part: part.to(dtype) if part.is_floating_point() else part, x)


def concatenate(inputs: Sequence[Inputs]) -> Inputs:
    """Concatenate batches of inputs along the first axis.

    Ragged batches may have been padded to different lengths: shorter ones are then padded further with zeros, which
    their mask marks as padding.
    """
    if not isinstance(inputs[0], dict):
        return torch.cat(list(inputs))
    return {name: torch.cat(_of_one_length([x[name] for x in inputs])) for name in inputs[0]}


def described(x: Inputs) -> str:
    """Their shapes, for messages: "(2, 1, 28, 28)", or of a dict "tokens (2, 8), mask (2, 8)"."""
    if isinstance(x, dict):
        return ", ".join(f"{name} {tuple(part.shape)}" for name, part in x.items())
    return str(tuple(x.shape))


def flattened(x: Inputs, prefix: str) -> dict[str, Tensor]:
    """The inputs as a flat dict of tensors whose names begin with `prefix`; `unflattened` is the inverse."""
    if isinstance(x, dict):
        return {f"{prefix}:{name}": part for name, part in x.items()}
    return {prefix: x}


def unflattened(tensors: dict[str, Tensor], prefix: str) -> Inputs:
    """The inverse of `flattened`, whatever else the dict holds."""
    if prefix in tensors:
        return tensors[prefix]
    begin = f"{prefix}:"
    return {name.removeprefix(begin): part for name, part in tensors.items() if name.startswith(begin)}


def not_taken(x: Inputs, error: Exception) -> InputError:
    """The error for a network that fails on a batch with one of the exceptions `NOT_TAKEN`."""
    told = f"{type(error).__name__}: {error}" if isinstance(error, LookupError | AttributeError) else str(error)
    return InputError(f"the model cannot take a batch of shape {described(x)} from this source: {told}")


def _of_one_length(parts: list[Tensor]) -> list[Tensor]:
    if len({part.shape[1:2] for part in parts}) == 1:
        return parts
    longest = max(part.shape[1] for part in parts)
    return [
        torch.cat([part, part.new_zeros(len(part), longest - part.shape[1], *part.shape[2:])], dim=1) for part in parts
    ]
