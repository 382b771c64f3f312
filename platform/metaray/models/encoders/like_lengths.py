"""Inputs of unequal length through an encoder in groups of like lengths, so that little of what it computes is padding.

A side of an episode is padded to its longest text: of the intents in BANKING77, three quarters of the places are none.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch._C._functorch import TransformType
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters

from metaray.data.preprocessing import MASK
from metaray.data.ragged import padded_length


def in_groups(encoder: Callable[[dict[str, Tensor]], Tensor], x: dict[str, Tensor]) -> Tensor:
    """What `encoder` makes of `x`, of each group of like lengths alone: the same but for rounding.

    The groups follow from the lengths alone. Mapped over (`torch.vmap`) or compiled, where shapes must not depend on
    values, all inputs go through together.

    Args:
        encoder: Takes such inputs to [n, size], each row of its own input alone.
        x: Tensors [n, L, ...], of which `mask` [n, L] is True where there is something; padding comes last.
    """
    if torch.compiler.is_compiling() or any(
        one.key() == TransformType.Vmap for one in retrieve_all_functorch_interpreters()
    ):
        return encoder(x)
    mask = x[MASK]
    most = mask.shape[1]
    lengths = [min(padded_length(max(length, 1)), most) for length in mask.sum(1).tolist()]
    kinds = sorted(set(lengths))
    if kinds == [most]:
        return encoder(x)
    rows = [[row for row, length in enumerate(lengths) if length == kind] for kind in kinds]
    made = []
    for kind, group in zip(kinds, rows, strict=True):
        places = torch.tensor(group, device=mask.device)
        made.append(encoder({name: part.index_select(0, places)[:, :kind] for name, part in x.items()}))
    order = torch.tensor([row for group in rows for row in group], device=mask.device).argsort()
    return torch.cat(made).index_select(0, order)
