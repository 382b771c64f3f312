"""Batch normalisation without running statistics: which examples it normalises over is always said.

By default a layer uses the statistics of the batch that it sees. `recording` keeps those of one forward pass, and
`given` makes later passes use them: that is how the inductive protocol normalises queries with the support set.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from metaray.errors import InputError

Protocol = Literal["transductive", "inductive"]


class EpisodicBatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy, ICML 2015) over the batch at hand or over given statistics.

    Args:
        channels: size of dimension 1 of the input.
        eps: added to the variance.
        affine: learn a scale and a shift.
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
        self.fused = True

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, ...] to the same shape.

        Raises:
            InputError: if there is one value a channel, so that nothing but zero could come out.
        """
        if self.statistics is None and x.numel() == x.shape[1]:
            raise InputError(
                "batch norm over a single example: a support set needs at least two; under the transductive protocol "
                "queries are normalised together, so give at least two at once, or use batch_norm='inductive'"
            )
        own = _statistics(x) if self.record or not self.fused else None
        if self.record:
            if self.recorded is not None:
                raise InputError(
                    "a batch norm layer is called twice in one forward pass, so that it has no one set of statistics: "
                    "give each call a layer of its own, or use batch_norm='transductive'"
                )
            self.recorded = own
        if self.statistics is None and self.fused:
            return nn.functional.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)
        # Written out because the fused kernel passes no gradient on to statistics that it is given.
        given_or_own = self.statistics or own
        assert given_or_own is not None
        mean, variance = given_or_own
        scale = torch.rsqrt(variance + self.eps)
        shift = -mean * scale
        if self.weight is not None and self.bias is not None:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return x * scale.to(x.dtype).view(shape) + shift.to(x.dtype).view(shape)


class WrittenLayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` that can do without the fused kernel, for the reason that `written_out` gives."""

    fused = True

    def forward(self, x: Tensor) -> Tensor:
        """[..., *normalized_shape] to the same shape."""
        if self.fused:
            return super().forward(x)
        dims = list(range(x.ndim - len(self.normalized_shape), x.ndim))
        wide = x.to(torch.float32) if x.dtype in (torch.bfloat16, torch.float16) else x
        variance, mean = torch.var_mean(wide, dim=dims, correction=0, keepdim=True)
        normal = (wide - mean) * torch.rsqrt(variance + self.eps)
        normal = normal if self.weight is None else normal * self.weight
        return (normal if self.bias is None else normal + self.bias).to(x.dtype)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, at least in float32."""
    wide = x.to(torch.float32) if x.dtype in (torch.bfloat16, torch.float16) else x
    variance, mean = torch.var_mean(wide, dim=[0, *range(2, x.ndim)], correction=0)
    return mean, variance


def _layers(network: nn.Module) -> dict[str, EpisodicBatchNorm]:
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, EpisodicBatchNorm)}


def normalises_batches(network: nn.Module) -> bool:
    """Whether some layer has the statistics of the batch that it sees, unless others are `given`."""
    return bool(_layers(network))


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
def written_out(network: nn.Module) -> Iterator[None]:
    """Within the block, layers do without the fused kernel.

    Under `torch.vmap` the derivatives of `batch_norm` and `layer_norm` take the statistics for constants, so second
    derivatives are wrong (torch 2.13); `batch_norm` also refuses bfloat16 with float32 weights there.
    """
    layers = [m for m in network.modules() if isinstance(m, EpisodicBatchNorm | WrittenLayerNorm)]
    for layer in layers:
        layer.fused = False
    try:
        yield
    finally:
        for layer in layers:
            layer.fused = True


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


def without_running_statistics(network: nn.Module) -> nn.Module:
    """Replace every `nn.BatchNorm*` of a network by an `EpisodicBatchNorm` of the same scale and shift, in place.

    Every `nn.LayerNorm` becomes a `WrittenLayerNorm`, which computes the same.

    Raises:
        InputError: for an `nn.InstanceNorm*` with running statistics.
    """
    for name, child in network.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            replacement = EpisodicBatchNorm(child.num_features, eps=child.eps, affine=child.affine)
            if child.affine:
                replacement.weight, replacement.bias = child.weight, child.bias
            setattr(network, name, replacement)
        elif isinstance(child, nn.modules.instancenorm._InstanceNorm) and child.track_running_stats:
            raise InputError(f"{name} ({type(child).__name__}) keeps running statistics: set track_running_stats=False")
        elif type(child) is nn.LayerNorm:
            child.__class__ = WrittenLayerNorm
        else:
            without_running_statistics(child)
    return network
