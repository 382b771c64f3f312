"""The residual network of the few-shot literature."""

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from metaray.data.ragged import FeatureShape, fixed_shape
from metaray.errors import InputError
from metaray.models.batch_norm import EpisodicBatchNorm
from metaray.models.model import Model, Network, SpatialMean

HALVINGS = 4
SLOPE = 0.1

Width = Annotated[int, Field(gt=0)]


class ResNet12(Model):
    """Four residual blocks of three 3x3 convolutions, each halving the resolution.

    The network of Lee et al. ("Meta-learning with differentiable convex optimization", MetaOptNet, CVPR 2019,
    arXiv:1904.03758, section 4.1), after Oreshkin et al. (TADAM, NeurIPS 2018, arXiv:1805.10123). A block is

        leaky_relu(max_pool(norm(conv(a)) + norm(conv_1x1(x)))),    a = two times leaky_relu(norm(conv(.))) of x

    with slope 0.1 and convolutions without bias: 12.4 million parameters on colour images. Convolutions start as in
    the authors' code, from a normal distribution of variance 2 / fan-out (He et al., arXiv:1502.01852), and the linear
    head as everywhere here.

    MetaOptNet trains with dropout in the first two blocks and DropBlock (Ghiasi et al., NeurIPS 2018,
    arXiv:1810.12890) in the last two, at a rate of 0.1 and a block size of 5, and so does `drop_rate=0.1`. Departures:
    the rate is constant, where the authors' grows over the first 40,000 forward passes, which a network without state
    can't count; and a block is at most as large as the map that it is cut from, as inputs of 28 or 32 pixels need.

    Attributes:
        channels: Number of channels of each of the four blocks.
        pool: How the last feature map becomes a vector: "flatten", as in MetaOptNet, or the "mean" over its places.
        drop_rate: Share of the activations that are dropped after each block in training; 0 drops none.
        block_size: Side of the squares that DropBlock drops.
    """

    kind: ClassVar[str] = "resnet12"
    channels: tuple[Width, Width, Width, Width] = (64, 160, 320, 640)
    pool: Literal["flatten", "mean"] = "flatten"
    drop_rate: float = Field(default=0.0, ge=0, lt=1)
    block_size: int = Field(default=5, gt=0)

    def build(self, feature_shape: FeatureShape, outputs: int | None) -> nn.Module:
        """See `Model.build`."""
        if len(feature_shape) != 3:
            raise InputError(f"resnet12 takes images (channels, height, width), not features of shape {feature_shape}")
        channels, height, width = fixed_shape(feature_shape, self.kind)
        least = 2**HALVINGS
        if min(height, width) < least:
            raise InputError(f"resnet12 halves its input four times: {height}x{width} is smaller than {least}x{least}")
        sizes = list(pairwise((channels, *self.channels)))
        blocks = [_Block(inputs, size, self._drop(i)) for i, (inputs, size) in enumerate(sizes)]
        places = 1 if self.pool == "mean" else (height // least) * (width // least)
        last = SpatialMean() if self.pool == "mean" else nn.Flatten()
        network = Network(nn.Sequential(*blocks, last), self.channels[-1] * places, outputs)
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")
        return network

    def _drop(self, block: int) -> nn.Module:
        if not self.drop_rate:
            return nn.Identity()
        return nn.Dropout(self.drop_rate) if block < 2 else DropBlock(self.drop_rate, self.block_size)


class DropBlock(nn.Module):
    """Zero squares of each channel in training, and scale the rest up (Ghiasi et al., algorithm 1).

    As in MetaOptNet's code every channel has its own squares, which lie wholly inside the map.

    Args:
        rate: Share of the activations to drop, about: squares may overlap.
        block_size: Side of a square; at most that of the map.
    """

    def __init__(self, rate: float, block_size: int) -> None:
        super().__init__()
        self.rate, self.block_size = rate, block_size

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, height, width] to the same shape."""
        if not self.training:
            return x
        height, width = x.shape[-2:]
        side = min(self.block_size, height, width)
        rows, columns = height - side + 1, width - side + 1
        gamma = self.rate * height * width / (side**2 * rows * columns)
        corners = (torch.rand(*x.shape[:2], rows, columns, device=x.device) < gamma).to(x.dtype)
        margin = side - 1
        spread = nn.functional.pad(corners, (margin, margin, margin, margin))
        kept = 1 - nn.functional.max_pool2d(spread, side, stride=1)
        return x * kept / kept.float().mean().clamp(min=1 / kept.numel()).to(x.dtype)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, drop: nn.Module) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(inputs, outputs, 3), EpisodicBatchNorm(outputs)
        self.conv2, self.norm2 = _conv(outputs, outputs, 3), EpisodicBatchNorm(outputs)
        self.conv3, self.norm3 = _conv(outputs, outputs, 3), EpisodicBatchNorm(outputs)
        self.shortcut, self.shortcut_norm = _conv(inputs, outputs, 1), EpisodicBatchNorm(outputs)
        self.pool, self.drop = nn.MaxPool2d(2), drop

    def forward(self, x: Tensor) -> Tensor:
        a = nn.functional.leaky_relu(self.norm1(self.conv1(x)), SLOPE)
        a = nn.functional.leaky_relu(self.norm2(self.conv2(a)), SLOPE)
        a = self.norm3(self.conv3(a)) + self.shortcut_norm(self.shortcut(x))
        result: Tensor = self.drop(nn.functional.leaky_relu(self.pool(a), SLOPE))
        return result


def _conv(inputs: int, outputs: int, side: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=side, padding=side // 2, bias=False)
