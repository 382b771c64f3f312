"""Networks as somebody wrote them who knew nothing of metaray, and the functions that build them for it."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 8


class Net(nn.Module):
    """A convolution and a linear layer."""

    def __init__(self, classes: int | None, *, slope: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.classifier = nn.Identity() if classes is None else nn.Linear(4 * SIDE * SIDE // 4, classes)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.max_pool2d(F.leaky_relu(self.conv(x), self.slope), 2).flatten(1)
        found: Tensor = self.classifier(hidden)
        return found


def build(*, feature_shape: tuple[int, ...], outputs: int | None) -> Net:
    return Net(outputs)


def build_leaky(*, feature_shape: tuple[int, ...], outputs: int | None) -> Net:
    return Net(outputs, slope=0.5)


class Normed(nn.Module):
    """With batch norm that keeps running statistics, and a layer under two names."""

    def __init__(self, *, feature_shape: tuple[int, ...], outputs: int | None) -> None:
        super().__init__()
        self.flat = nn.Linear(math.prod(feature_shape), 6)
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, outputs or 6)
        self.same = self.head

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.same(self.norm(self.flat(x.flatten(1))))
        return found
