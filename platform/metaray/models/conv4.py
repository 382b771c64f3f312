"""The four-block convolutional network of the few-shot literature."""

from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field, field_validator
from torch import Tensor, nn

from metaray.data.ragged import FeatureShape, fixed_shape
from metaray.errors import InputError
from metaray.models.batch_norm import EpisodicBatchNorm
from metaray.models.model import Model, Network, SpatialMean


class Conv4(Model):
    """Four blocks of 3x3 convolution, batch norm and ReLU; each (or the first few) halves the resolution.

    `max_pool` is the network of Vinyals et al. (NeurIPS 2016, section 4.1.1) and Snell et al. (NeurIPS 2017): pooling
    after each block, the last feature map flattened. `stride` is the one that Finn et al. use on Omniglot (ICML 2017,
    section 5.2): strided convolutions, the last feature map averaged, about a quarter of the arithmetic. With `pools=2`
    and `max_pool` it is the embedding of Sung et al. (CVPR 2018, section 3.4), whose first two convolutions however are
    not padded.

    Attributes:
        channels: Number of channels of every block, or a number for each of the four.
        downsample: How blocks halve the resolution: "max_pool" or "stride".
        pools: Number of blocks, from the first on, that halve the resolution.
        bias: Whether the convolutions have a bias. Batch norm subtracts any bias again: without one, a step costs less
            and learns the same.
    """

    kind: ClassVar[str] = "conv4"
    channels: int | tuple[int, int, int, int] = 64
    downsample: Literal["max_pool", "stride"] = "max_pool"
    pools: int = Field(default=4, ge=1, le=4)
    bias: bool = Field(default=True, exclude_if=lambda bias: bias)

    @field_validator("channels")
    @classmethod
    def _positive(cls, channels: int | tuple[int, int, int, int]) -> int | tuple[int, int, int, int]:
        least = channels if isinstance(channels, int) else min(channels)
        if least <= 0:
            raise ValueError(f"must be greater than 0 (got {least})")
        return channels

    def build(self, feature_shape: FeatureShape, outputs: int | None) -> nn.Module:
        """See `Model.build`."""
        if len(feature_shape) != 3:
            raise InputError(f"conv4 takes images (channels, height, width), not features of shape {feature_shape}")
        channels, height, width = fixed_shape(feature_shape, self.kind)
        factor = 2**self.pools
        if min(height, width) < factor:
            shape = f"{height}x{width}"
            raise InputError(f"conv4 halves its input {self.pools} times: {shape} is smaller than {factor}x{factor}")
        downsamples = [self.downsample if i < self.pools else None for i in range(4)]
        widths = (self.channels,) * 4 if isinstance(self.channels, int) else self.channels
        sizes = [channels, *widths]
        blocks = [
            _Block(*pair, downsample, self.bias) for pair, downsample in zip(pairwise(sizes), downsamples, strict=True)
        ]
        if self.downsample == "stride":
            return Network(nn.Sequential(*blocks, SpatialMean()), widths[-1], outputs)
        size = widths[-1] * (height // factor) * (width // factor)
        return Network(nn.Sequential(*blocks, nn.Flatten()), size, outputs)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, downsample: Literal["max_pool", "stride"] | None, bias: bool) -> None:
        super().__init__()
        stride = 2 if downsample == "stride" else 1
        self.conv = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, stride=stride, bias=bias)
        self.norm = EpisodicBatchNorm(outputs)
        self.pool: nn.Module = nn.MaxPool2d(2) if downsample == "max_pool" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        # The larger of two stays so under ReLU, and a quarter is left to be rectified: the same bits for less.
        result: Tensor = nn.functional.relu(self.pool(self.norm(self.conv(x))))
        return result
