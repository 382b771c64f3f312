"""Residual networks with the names and shapes of torchvision's, in arithmetic that can be differentiated twice.

He, Zhang, Ren and Sun ("Deep residual learning for image recognition", CVPR 2016, arXiv:1512.03385, table 1); a block:

    relu(f(x) + shortcut(x)),    f of two 3x3 convolutions, or (a bottleneck) of 1x1, 3x3 and 1x1, each with its norm

and the first block of layers 2 to 4 halves the resolution: a bottleneck in its 3x3 convolution, as torchvision has it,
not in its first one, as in the paper. Batch norms use the statistics that are stored with them, in training as well,
whatever the protocol says: so an image's vector depends on no other image.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from metaray.data.preprocessing import Preprocessing
from metaray.errors import InputError
from metaray.models.encoders.architecture import MOST_LAYERS, MOST_NUMBERS, MOST_WIDE, Architecture, Pooling
from metaray.models.encoders.pictures import Pictures
from metaray.models.encoders.pooling import unit
from metaray.models.encoders.sight import Sight
from metaray.models.encoders.unfilled import Conv2d, Linear
from metaray.models.written_out import normalized

LAYERS = 4
Count = Annotated[int, Field(gt=0, le=MOST_LAYERS)]
NAMED: dict[str, tuple[tuple[int, ...], bool]] = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
}
"""Blocks of each layer, and whether they are bottlenecks, by the architecture's name in files."""
WIDENED = 4
"""Ratio of the output channels of a bottleneck to its inner channels."""


class ResNet(Architecture):
    """The architecture of a residual network, which its weights determine without a `config.json`.

    Attributes:
        blocks: Number of blocks in each of the four layers.
        bottleneck: Whether a block has three convolutions instead of two.
        width: Number of channels of the first convolution, and inside the first layer.
        classes: Number of outputs of the file's last layer `fc`; 0 if the file has no such layer.
        sight: Description of the images that the network was trained on; without a size, any size is taken.
    """

    kind: ClassVar[str] = "resnet"
    poolings: ClassVar[tuple[Pooling, ...]] = ("mean", "fc")

    blocks: tuple[Count, Count, Count, Count]
    bottleneck: bool
    width: int = Field(default=64, gt=0, le=MOST_WIDE)
    classes: int = Field(default=0, ge=0, le=MOST_NUMBERS)
    sight: Sight = Sight()

    @classmethod
    def read(
        cls,
        configuration: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        preparation: Mapping[str, Any] | None = None,
    ) -> Self | None:
        """See `Architecture.read`."""
        first = shapes.get("conv1.weight", ())
        if len(first) != 4 or "bn1.running_mean" not in shapes or "layer1.0.conv1.weight" not in shapes:
            return None
        if first[1] != 3:
            raise InputError(f"the weights take images of {first[1]} channels, but only encoders of 3 can be computed")
        found = cls.parse(
            {
                "blocks": [_blocks(shapes, layer) for layer in range(1, LAYERS + 1)],
                "bottleneck": "layer1.0.conv3.weight" in shapes,
                "width": first[0],
                "classes": shapes["fc.weight"][0] if shapes.get("fc.weight") else 0,
                "sight": Sight.read(configuration, preparation or {}),
            },
            where="weights",
        )
        name = configuration.get("architecture")
        if isinstance(name, str) and (said := NAMED.get(name)) and said != (found.blocks, found.bottleneck):
            raise InputError(
                f"config.json says {name}, whose layers have {_told(*said)}, but the weights have "
                f"{_told(found.blocks, found.bottleneck)}"
            )
        return found

    @property
    def size(self) -> int:
        """See `Architecture.size`."""
        return self.width * (1 << LAYERS - 1) * self.widened

    def size_of(self, pooling: Pooling) -> int:
        """See `Architecture.size_of`."""
        return self.classes if pooling == "fc" else self.size

    @property
    def widened(self) -> int:
        """Ratio of the number of output channels of a block to that of its inner channels."""
        return WIDENED if self.bottleneck else 1

    def build(self, pooling: Pooling, normalized: bool, preprocessing: Preprocessing | None = None) -> nn.Module:
        """See `Architecture.build`.

        Raises:
            InputError: If the pooling is "fc" and the file has no such layer.
        """
        if pooling == "fc" and not self.classes:
            raise InputError("pooling 'fc' is what the layer fc makes of the mean, but the weights hold no such layer")
        source = None if preprocessing is None else self.sight.check(preprocessing)
        return ResNetNetwork(self, Pictures(self.sight, source), pooling, normalized)

    def own_names(self, name: str) -> tuple[str, ...]:
        """See `Architecture.own_names`."""
        return () if name.endswith("num_batches_tracked") else (name,)

    def is_optional(self, name: str) -> bool:
        """See `Architecture.is_optional`."""
        return name.startswith("fc.")

    @property
    def preprocessing(self) -> Preprocessing | None:
        """See `Architecture.preprocessing`."""
        return self.sight.preprocessing

    def check(self, preprocessing: Preprocessing) -> None:
        """See `Architecture.check`."""
        self.sight.check(preprocessing)


class ResNetNetwork(nn.Module):
    """The encoder: normalised images of a source, [n, channels, height, width], to [n, size]."""

    def __init__(self, shape: ResNet, pictures: Pictures, pooling: Pooling, normalized: bool) -> None:
        super().__init__()
        self.pictures, self.normalized = pictures, normalized
        self.conv1, self.bn1 = _conv(3, shape.width, 7, stride=2), StoredBatchNorm(shape.width)
        inputs = shape.width
        for place, count in enumerate(shape.blocks):
            inside = shape.width * 2**place
            outputs, blocks = inside * shape.widened, []
            for block in range(count):
                stride = 2 if place and not block else 1
                blocks.append(_Block(inputs, inside, outputs, stride=stride, bottleneck=shape.bottleneck))
                inputs = outputs
            setattr(self, f"layer{place + 1}", nn.Sequential(*blocks))
        self.fc: nn.Module = Linear(inputs, shape.classes) if pooling == "fc" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = functional.relu(self.bn1(self.conv1(self.pictures(x))))
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        for place in range(1, LAYERS + 1):
            x = self.get_submodule(f"layer{place}")(x)
        found: Tensor = self.fc(x.mean((2, 3)))
        return unit(found) if self.normalized else found


class StoredBatchNorm(nn.Module):
    """Batch normalisation with stored statistics, in training as well.

    Args:
        channels: Size of dimension 1 of the input.
        eps: Number added to the variance.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(channels)), nn.Parameter(torch.empty(channels))
        self.register_buffer("running_mean", torch.empty(channels))
        self.register_buffer("running_var", torch.empty(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, ...] to the same shape."""
        return normalized(x, (self.running_mean, self.running_var), self.weight, self.bias, self.eps)


class _Block(nn.Module):
    """Two convolutions, or three, and what goes past them."""

    def __init__(self, inputs: int, inside: int, outputs: int, *, stride: int, bottleneck: bool) -> None:
        super().__init__()
        shapes: list[tuple[int, int, int, int]] = (
            [(inputs, inside, 1, 1), (inside, inside, 3, stride), (inside, outputs, 1, 1)]
            if bottleneck
            else [(inputs, inside, 3, stride), (inside, outputs, 3, 1)]
        )
        for place, (before, after, side, step) in enumerate(shapes, 1):
            setattr(self, f"conv{place}", _conv(before, after, side, stride=step))
            setattr(self, f"bn{place}", StoredBatchNorm(after))
        self.count = len(shapes)
        past = [_conv(inputs, outputs, 1, stride=stride), StoredBatchNorm(outputs)]
        self.downsample = nn.Sequential(*past) if stride != 1 or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, height, width] to [n, outputs, height / stride, width / stride]."""
        found = x
        for place in range(1, self.count + 1):
            found = self.get_submodule(f"bn{place}")(self.get_submodule(f"conv{place}")(found))
            if place < self.count:
                found = functional.relu(found)
        return functional.relu(found + self.downsample(x))


def _conv(inputs: int, outputs: int, side: int, *, stride: int) -> nn.Conv2d:
    return Conv2d(inputs, outputs, side, stride=stride, padding=side // 2, bias=False)


def _blocks(shapes: Mapping[str, tuple[int, ...]], layer: int) -> int:
    """Blocks of a layer, by the names of its tensors."""
    found = (re.match(rf"layer{layer}\.(\d{{1,6}})\.", name) for name in shapes)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _told(blocks: tuple[int, ...], bottleneck: bool) -> str:
    return f"{list(blocks)} {'bottlenecks' if bottleneck else 'blocks of two convolutions'}"
