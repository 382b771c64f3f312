"""Whether what a preprocessing says of its inputs is so, and the network heeds where ragged ones are padded."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from metaray.algorithms.context import Context, Tensors
from metaray.data.preprocessing import Preprocessing
from metaray.data.ragged import LENGTHS, VALUES, is_ragged, lengthened, padded_length, shape_text
from metaray.episodes.inputs import Inputs, described, mapped, tensors_of
from metaray.errors import InputError
from metaray.models.model import trainable
from metaray.models.state import undone

PROBES = 4
ALIKE = 1e-4
"""How far outputs may lie apart, by the largest of them: kernels round differently for other lengths."""


def check_preprocessing(context: Context, preprocessing: Preprocessing) -> None:
    """Look at a preprocessing's probe, at what the nearest neighbour compares, and at padding.

    Args:
        context: Circumstances of an evaluation.
        preprocessing: Preprocessing of the source.

    Raises:
        InputError: Naming the preprocessing and what is wrong; or that the network's answers depend on the padding.
    """
    compact = preprocessing.probe(PROBES)
    _check_probe(preprocessing, compact)
    x = _normalized(preprocessing, compact)
    if any(len(part) != PROBES for part in tensors_of(x)):
        raise InputError(
            f"preprocessing {preprocessing.kind!r}: normalize made {described(x)} of {PROBES} examples; each tensor's "
            "first axis must be that of the examples"
        )
    further = None
    if is_ragged(preprocessing.feature_shape):
        length = padded_length(compact[VALUES].shape[1] + 1)
        further = _normalized(preprocessing, lengthened(compact, length))
    if preprocessing.compared is not None:
        _check_comparison(preprocessing, x, further)
    if further is not None:
        _check_padding(context, x, further)


def _check_probe(preprocessing: Preprocessing, compact: Any) -> None:
    if not _is_compact(preprocessing, compact):
        raise InputError(
            f"preprocessing {preprocessing.kind!r}: probe({PROBES}) must give {PROBES} compact examples, "
            f"{preprocessing.dtype} of shape {shape_text(preprocessing.feature_shape)}, as read does"
        )


def _is_compact(preprocessing: Preprocessing, compact: Any) -> bool:
    shape, values = preprocessing.feature_shape, compact
    if is_ragged(shape):
        if not isinstance(compact, dict) or compact.keys() != {VALUES, LENGTHS} or len(compact[LENGTHS]) != PROBES:
            return False
        shape, values = shape[1:], compact[VALUES][:, 0]
    return isinstance(values, np.ndarray) and values.shape == (PROBES, *shape) and values.dtype == preprocessing.dtype


def _normalized(preprocessing: Preprocessing, compact: Any) -> Inputs:
    return preprocessing.normalize(mapped(torch.from_numpy, compact))


def _check_comparison(preprocessing: Preprocessing, x: Inputs, further: Inputs | None) -> None:
    found = preprocessing.comparable(x)
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != PROBES:
        raise InputError(
            f"preprocessing {preprocessing.kind!r}: comparable must give one vector an input, [{PROBES}, numbers] of "
            f"{PROBES} inputs (got {described(found) if isinstance(found, Tensor) else type(found).__name__})"
        )
    if further is not None and not torch.equal(found, preprocessing.comparable(further)):
        raise InputError(
            f"preprocessing {preprocessing.kind!r}: what comparable gives depends on how far inputs are padded: it "
            "must count what the mask has alone"
        )


def _check_padding(context: Context, x: Inputs, further: Inputs) -> None:
    parameters: Tensors = {**trainable(context.network)}
    with torch.no_grad(), undone(context.network):
        found, again = (context.forward(parameters, each) for each in (x, further))
    apart = float((found - again).abs().max()) if found.shape == again.shape else float("inf")
    if not apart <= ALIKE * max(float(found.abs().max()), 1e-3):
        raise InputError(
            f"the network's answer to an input depends on how far it is padded (up to {apart:.1e} apart): ragged "
            "inputs come padded with zeros to one of a few lengths, together with those of their batch. Leave out "
            "what the mask leaves out, as in (h * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)"
        )
