"""What the peers that compute with PyTorch have in common: the network, and a meta-step over a meta-batch."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from jobs.benchmarks.peers.wire import SIDES, WEIGHT, Arrays, Method


class Episode(NamedTuple):
    """One task: inputs and labels of both sides."""

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor


class Outcome(NamedTuple):
    """Of one meta-batch: the mean loss of its queries, and the norm of that loss's gradient."""

    loss: float
    gradient_norm: float


def import_late_parts() -> None:
    """Let torch import what its optimisers need with their first step: that is not the memory of a meta-step."""
    value = torch.zeros(1, requires_grad=True)
    value.grad = torch.zeros(1)
    optimizer = torch.optim.Adam([value])
    optimizer.step()
    optimizer.zero_grad()


Backward = Callable[[Episode, float], Tensor]
"""Adds a share of one task's meta-gradient to `.grad` of the network's parameters, and returns the task's loss."""


class Refused(Exception):
    """What a library has nothing for; the message says so."""


def cast(dtype: str) -> AbstractContextManager[object]:
    """The arithmetic of the network."""
    return torch.autocast("cpu", dtype=torch.bfloat16) if dtype == "bfloat16" else nullcontext()


class Body(nn.Sequential):
    """The blocks, in the arithmetic that they are asked for."""

    dtype = "float32"

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, height, width] to [n, embedding]."""
        with cast(self.dtype):
            for module in self:
                x = module(x)
        return x


class Head(nn.Linear):
    """The last layer, likewise."""

    dtype = "float32"

    def forward(self, x: Tensor) -> Tensor:
        """[n, embedding] to [n, N]."""
        with cast(self.dtype):
            return super().forward(x)


class Block(nn.Module):
    """Convolution, batch norm, ReLU and pooling, in the order in which they are usually written."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs, track_running_stats=False)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Half the resolution."""
        found: Tensor = self.pool(torch.relu(self.norm(self.conv(x))))
        return found


class Conv4(nn.Module):
    """The network of the few-shot literature in torch's own modules, its parameters named as metaray's.

    Args:
        weights: all of them, by name; without a head it embeds.
        dtype: of its arithmetic.
    """

    def __init__(self, weights: dict[str, Tensor], dtype: str) -> None:
        super().__init__()
        first = weights["body.0.conv.weight"]
        blocks = (Block(*pair) for pair in pairwise([first.shape[1], *[first.shape[0]] * 4]))
        self.body = Body(*blocks, nn.Flatten())
        self.head: nn.Module = nn.Identity()
        self.body.dtype = dtype
        if "head.weight" in weights:
            outputs, inputs = weights["head.weight"].shape
            self.head = head = Head(inputs, outputs)
            head.dtype = dtype
        self.load_state_dict(weights)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, height, width] to [n, N], or to [n, embedding]."""
        found: Tensor = self.head(self.body(x))
        return found


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """The mean over examples, in float32."""
    return nn.functional.cross_entropy(logits.float(), y)


def by_backward(loss_of: Callable[[Episode], Tensor]) -> Backward:
    """Where the task's loss is connected to the network's parameters."""

    def backward(episode: Episode, share: float) -> Tensor:
        loss = loss_of(episode)
        (share * loss).backward()
        return loss.detach()

    return backward


def by_gradient(loss_and_where: Callable[[Episode], tuple[Tensor, list[Tensor]]], network: nn.Module) -> Backward:
    """Where it is connected to the adapted parameters alone, at which the gradient is then taken, as FOMAML does."""

    def backward(episode: Episode, share: float) -> Tensor:
        loss, where = loss_and_where(episode)
        for parameter, gradient in zip(network.parameters(), torch.autograd.grad(share * loss, where), strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return loss.detach()

    return backward


class TorchLearner:
    """Meta-steps of a network on one meta-batch.

    Args:
        make: of a library: how a task's gradient is found.
        method: what is computed.
        arrays: weights and episodes.
    """

    def __init__(self, make: Callable[[Conv4, Method], Backward], method: Method, arrays: Arrays) -> None:
        weights = {name.removeprefix(WEIGHT): array for name, array in arrays.items() if name.startswith(WEIGHT)}
        network = Conv4({name: torch.from_numpy(array) for name, array in weights.items()}, method.dtype)
        self._backward, self._parameters = make(network, method), list(network.parameters())
        self._episodes = [Episode(*map(torch.from_numpy, one)) for one in zip(*(arrays[s] for s in SIDES), strict=True)]
        self._optimizer = torch.optim.Adam(self._parameters, method.outer_lr)

    def outcome(self) -> Outcome:
        """The meta-gradient alone."""
        loss = self._gradient()
        squares = [p.grad.square().sum() for p in self._parameters if p.grad is not None]
        return Outcome(loss, float(torch.stack(squares).sum().sqrt()))

    def step(self) -> None:
        """The meta-gradient, and the outer step."""
        self._gradient()
        self._optimizer.step()

    def _gradient(self) -> float:
        self._optimizer.zero_grad()
        share = 1 / len(self._episodes)
        return share * float(torch.stack([self._backward(episode, share) for episode in self._episodes]).sum())
