"""The convolutional network of R2D2."""

from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from metaray.errors import InputError
from metaray.models.batch_norm import EpisodicBatchNorm
from metaray.models.model import Model, Network

SLOPE = 0.1
HALVINGS = 3

Width = Annotated[int, Field(gt=0)]


class R2D2Net(Model):
    """Four blocks of 3x3 convolution, batch norm, max-pooling and leaky ReLU, whose last two maps are the embedding.

    The network of Bertinetto et al. ("Meta-learning with differentiable closed-form solvers", ICLR 2019,
    arXiv:1805.08136, section 4.2), as in the authors' code: pooling halves three times; the maps of the third block and
    those of the fourth then lose one row and one column by pooling over 2x2 places with stride 1, and are flattened and
    joined: 8,064 numbers on images of 32 pixels, or 1,152 at 64 channels throughout, the paper's smaller variant.
    Dropout follows the third and the fourth block: at a rate of 0.1 on miniImageNet and 0.4 on CIFAR-FS in the paper.

    Attributes:
        channels: Number of channels of each of the four blocks.
        drop_rate: Share of the activations of the last two blocks that are dropped in training; 0 drops none.
    """

    kind: ClassVar[str] = "r2d2_net"
    channels: tuple[Width, Width, Width, Width] = (96, 192, 384, 512)
    drop_rate: float = Field(default=0.0, ge=0, lt=1)

    def build(self, feature_shape: tuple[int, ...], outputs: int | None) -> nn.Module:
        """See `Model.build`."""
        if len(feature_shape) != 3:
            raise InputError(f"r2d2_net takes images (channels, height, width), not features of shape {feature_shape}")
        channels, height, width = feature_shape
        least = 2 ** (HALVINGS + 1)
        if min(height, width) < least:
            raise InputError(f"r2d2_net pools four times: {height}x{width} is smaller than {least}x{least}")
        places = (height // 2**HALVINGS - 1) * (width // 2**HALVINGS - 1)
        return Network(_Body((channels, *self.channels), self.drop_rate), sum(self.channels[2:]) * places, outputs)


class _Body(nn.Module):
    def __init__(self, channels: tuple[int, ...], drop_rate: float) -> None:
        super().__init__()
        strides, rates = (2, 2, 2, 1), (0.0, 0.0, drop_rate, drop_rate)
        self.block1, self.block2, self.block3, self.block4 = (
            _Block(*sizes, stride, rate) for sizes, stride, rate in zip(pairwise(channels), strides, rates, strict=True)
        )
        self.shrink = nn.MaxPool2d(2, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        third = self.block3(self.block2(self.block1(x)))
        fourth = self.block4(third)
        return torch.cat([self.shrink(third).flatten(1), fourth.flatten(1)], dim=1)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, drop_rate: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
        self.norm = EpisodicBatchNorm(outputs)
        self.pool = nn.MaxPool2d(2, stride=stride)
        self.drop: nn.Module = nn.Dropout(drop_rate) if drop_rate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.drop(nn.functional.leaky_relu(self.pool(self.norm(self.conv(x))), SLOPE))
        return result
