"""Batch normalisation without running statistics: which examples it normalises over is always said.

By default a layer uses the statistics of the batch that it sees. `recording` keeps those of one forward pass, and
`given` makes later passes use them: that is how the inductive protocol normalises queries with the support set.

The one exception is a frozen layer of a user's network, which keeps the statistics that it was stored with; see
`metaray.models.conversion`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from metaray.errors import InputError
from metaray.models.written_out import is_written_out, normalized, statistics_of

Protocol = Literal["transductive", "inductive"]


class EpisodicBatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy, ICML 2015) over the batch at hand or over given statistics.

    Args:
        channels: Size of dimension 1 of the input.
        eps: Added to the variance.
        affine: Learn a scale and a shift.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.channels = channels
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.statistics: tuple[Tensor, Tensor] | None = None
        self.recorded: tuple[Tensor, Tensor] | None = None
        self.record = False

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of x [n, channels, ...]; the shape stays the same.

        Raises:
            InputError: If a channel has a single value, whose normalised value could only be zero.
        """
        if self.statistics is None and x.numel() == x.shape[1]:
            raise InputError(
                "batch norm over a single example: a support set needs at least two; under the transductive protocol "
                "queries are normalised together, so give at least two at once, or use batch_norm='inductive'"
            )
        writes = is_written_out()
        own = statistics_of(x) if self.record or writes else None
        if self.record:
            if self.recorded is not None:
                raise InputError(
                    "a batch norm layer is called twice in one forward pass, so that it has no one set of statistics: "
                    "give each call a layer of its own, or use batch_norm='transductive'"
                )
            self.recorded = own
        if self.statistics is None and not writes:
            return nn.functional.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)
        # Written out also because the fused kernel passes no gradient on to statistics that it is given.
        given_or_own = self.statistics or own
        assert given_or_own is not None
        return normalized(x, given_or_own, self.weight, self.bias, self.eps)


class FrozenBatchNorm(nn.Module):
    """Batch normalisation with stored statistics, in training too.

    `metaray.models.conversion` makes it from a batch norm layer of torch, and keeps all of that layer's attributes.
    """

    running_mean: Tensor
    running_var: Tensor
    weight: nn.Parameter | None
    bias: nn.Parameter | None
    eps: float

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, ...] to the same shape."""
        return nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


def _layers(network: nn.Module) -> dict[str, EpisodicBatchNorm]:
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, EpisodicBatchNorm)}


def normalises_batches(network: nn.Module) -> bool:
    """Whether some layer uses the statistics of the batch that it sees, unless others are `given`."""
    return bool(_layers(network))


def is_watched(network: nn.Module) -> bool:
    """Whether this is inside of `recording` or `given` of a network."""
    return any(layer.record or layer.statistics is not None for layer in _layers(network).values())


@contextmanager
def recording(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Within the block, forward passes fill the yielded dict with `<layer>.mean` and `<layer>.variance`."""
    layers = _layers(network)
    found: dict[str, Tensor] = {}
    for layer in layers.values():
        layer.record = True
    try:
        yield found
        for name, layer in layers.items():
            if layer.recorded is not None:
                found[f"{name}.mean"], found[f"{name}.variance"] = layer.recorded
    finally:
        for layer in layers.values():
            layer.record, layer.recorded = False, None


@contextmanager
def given(network: nn.Module, statistics: dict[str, Tensor]) -> Iterator[None]:
    """Within the block, layers normalise with `statistics`, as `recording` found them."""
    layers = _layers(network)
    for name, layer in layers.items():
        if f"{name}.mean" in statistics:
            layer.statistics = (statistics[f"{name}.mean"], statistics[f"{name}.variance"])
    try:
        yield
    finally:
        for layer in layers.values():
            layer.statistics = None
