"""Embeddings of 28x28 drawings without labels: two losses, and the networks that they are of."""

from abc import abstractmethod
from math import pi
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, grid_sample, interpolate, normalize

SIZE = 64
"""Numbers of an embedding."""
WIDTH = 48


def convolutions(channels: int = WIDTH) -> nn.Sequential:
    """[n, 1, 28, 28] to [n, 4 * channels], halving four times."""
    layers: list[nn.Module] = []
    for place in range(4):
        layers += [nn.Conv2d(channels if place else 1, channels, 3, stride=2, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten())


class Embedding(nn.Module):
    """What makes embeddings, and whatever else its loss needs.

    Attributes:
        body: [n, 1, 28, 28] in 0 .. 1 to [n, SIZE].
    """

    kind: ClassVar[str]
    about: ClassVar[str]
    batch: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(convolutions(), nn.Linear(4 * WIDTH, SIZE))

    @abstractmethod
    def loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Of a batch of images."""


def altered(x: Tensor, generator: torch.Generator) -> Tensor:
    """Turned by up to 20 degrees, scaled and stretched by up to a fifth, moved by up to 3 pixels, a tenth erased."""
    turn, scale, stretch, across, down = (2 * torch.rand(5, len(x), generator=generator) - 1).unbind()
    turn, scale, stretch = turn * (20 * pi / 180), 1 + 0.2 * scale, 1 + 0.2 * stretch
    cosine, sine, most = scale * turn.cos(), scale * turn.sin(), 6 / 28
    rows = [cosine, -sine, most * across, stretch * sine, stretch * cosine, most * down]
    grid = torch.nn.functional.affine_grid(torch.stack(rows, dim=1).view(-1, 2, 3), list(x.shape), align_corners=False)
    moved = grid_sample(x, grid, align_corners=False)
    return moved * (torch.rand(x.shape, generator=generator) > 0.1)


class Contrastive(Embedding):
    """Two altered copies of an image are to be nearer to one another than to those of any other image.

    Chen, Kornblith, Norouzi and Hinton ("A simple framework for contrastive learning of visual representations", ICML
    2020): cross entropy over cosines with a temperature, behind a small network that is thrown away.
    """

    kind: ClassVar[str] = "contrastive"
    about: ClassVar[str] = "SimCLR's loss"
    batch: ClassVar[int] = 256
    temperature: ClassVar[float] = 0.2

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Sequential(nn.ReLU(), nn.Linear(SIZE, 2 * SIZE), nn.ReLU(), nn.Linear(2 * SIZE, SIZE))

    def loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Over the 2n copies of n images."""
        copies = torch.cat([altered(x, generator), altered(x, generator)])
        found = normalize(self.projection(self.body(copies)), dim=1)
        cosines = found @ found.T / self.temperature
        cosines = cosines - 1e9 * torch.eye(len(copies))
        return cross_entropy(cosines, torch.arange(len(copies)).roll(len(x)))


class Interpolating(Embedding):
    """An auto-encoder whose interpolations a critic cannot tell from images.

    Berthelot, Raffel, Roy and Goodfellow ("Understanding and improving interpolation in autoencoders via an adversarial
    regularizer", ICLR 2019), equations 1 and 2, smaller than theirs; these are the paper's embeddings ("ACAI").
    """

    kind: ClassVar[str] = "acai"
    about: ClassVar[str] = "an adversarially constrained auto-encoder interpolation"
    batch: ClassVar[int] = 64
    regularized: ClassVar[float] = 0.5
    mixed: ClassVar[float] = 0.2
    width: ClassVar[int] = WIDTH // 2

    def __init__(self) -> None:
        super().__init__()
        width = self.width
        self.decoder = nn.ModuleList([nn.Linear(SIZE, width * 49), *(nn.Conv2d(width, width, 3, 1, 1) for _ in "ab")])
        self.last = nn.Conv2d(width, 1, 3, padding=1)
        self.critic = nn.Sequential(convolutions(width), nn.Linear(4 * width, 1), nn.Flatten(0))

    def decoded(self, z: Tensor) -> Tensor:
        """[n, SIZE] to images."""
        first, *convolved = self.decoder
        x = first(z).view(-1, self.width, 7, 7)
        for layer in convolved:
            x = interpolate(layer(x.relu()), scale_factor=2)
        found: Tensor = self.last(x.relu()).sigmoid()
        return found

    def loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Of auto-encoder and critic at once, each with its own gradients alone."""
        z = self.body(x)
        share = torch.rand(len(x), 1, generator=generator) / 2
        again, between = self.decoded(z), self.decoded((1 - share) * z + share * z.flip(0))
        with _untouched(self.critic):
            fooled = self.critic(between).square().mean()
        told = (self.critic(between.detach()) - share[:, 0]).square().mean()
        blend = self.mixed * x + (1 - self.mixed) * again.detach()
        told = told + self.critic(blend).square().mean()
        found: Tensor = (x - again).square().sum((1, 2, 3)).mean() / 28 + self.regularized * fooled + told
        return found


class _untouched:  # noqa: N801 - a block
    """In the block, nothing flows into the parameters of a network, while it does flow through it."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __enter__(self) -> None:
        self.network.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        self.network.requires_grad_(True)


EMBEDDINGS: dict[str, type[Embedding]] = {one.kind: one for one in (Contrastive, Interpolating)}
