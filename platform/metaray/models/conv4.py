"""The four-block convolutional network of the few-shot literature."""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from metaray.errors import InputError
from metaray.models.batch_norm import EpisodicBatchNorm
from metaray.models.model import Model, Network


class Conv4(Model):
    """Four blocks of 3x3 convolution, batch norm and ReLU, each halving the resolution.

    `max_pool` is the network of Vinyals et al. (NeurIPS 2016, section 4.1.1) and Snell et al. (NeurIPS 2017): pooling
    after each block, the last feature map flattened. `stride` is the one that Finn et al. use on Omniglot (ICML 2017,
    section 5.2): strided convolutions, the last feature map averaged, about a quarter of the arithmetic.

    Attributes:
        channels: of every block.
        downsample: "max_pool" or "stride".
    """

    kind: ClassVar[str] = "conv4"
    channels: int = Field(default=64, gt=0)
    downsample: Literal["max_pool", "stride"] = "max_pool"

    def build(self, feature_shape: tuple[int, ...], outputs: int | None) -> nn.Module:
        """See `Model.build`."""
        if len(feature_shape) != 3:
            raise InputError(f"conv4 takes images (channels, height, width), not features of shape {feature_shape}")
        channels, height, width = feature_shape
        if min(height, width) < 16:
            raise InputError(f"conv4 halves its input four times: {height}x{width} is smaller than 16x16")
        blocks = [_Block(channels if i == 0 else self.channels, self.channels, self.downsample) for i in range(4)]
        if self.downsample == "stride":
            return Network(nn.Sequential(*blocks, _SpatialMean()), self.channels, outputs)
        size = self.channels * (height // 16) * (width // 16)
        return Network(nn.Sequential(*blocks, nn.Flatten()), size, outputs)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, downsample: str) -> None:
        super().__init__()
        strided = downsample == "stride"
        self.conv = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, stride=2 if strided else 1)
        self.norm = EpisodicBatchNorm(outputs)
        self.pool: nn.Module = nn.Identity() if strided else nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.pool(nn.functional.relu(self.norm(self.conv(x))))
        return result


class _SpatialMean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))
