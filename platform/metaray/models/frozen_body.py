"""A pretrained network as it was before any training here, for baselines: each input goes through it once."""

from hashlib import sha256

import torch
from torch import Tensor, nn

from metaray.config import Config
from metaray.data.preprocessing import MASK
from metaray.episodes.inputs import Inputs, count, mapped
from metaray.models.comparison import Comparing
from metaray.models.encoders.encoder import Encoder
from metaray.models.lora import LoRA
from metaray.models.model import Model


def is_pretrained(model: Model) -> bool:
    """Whether the model is an encoder, or contains one, such as a low-rank adaptation of it."""
    if isinstance(model, Encoder):
        return True
    inside = [value for value in dict(model).values() if isinstance(value, Config)]
    return any(isinstance(value, Model) and is_pretrained(value) for value in inside)


def has_frozen_encoder(model: Model) -> bool:
    """Whether the model contains an encoder that stays as it is: a frozen one, or one under low-rank adaptation."""
    if isinstance(model, LoRA):
        return is_pretrained(model.model) and "*" not in model.trained
    return isinstance(model, Encoder) and model.frozen


class FrozenBody(Comparing):
    """A cache of the vectors that a frozen network computes, by input.

    Evaluations meet the same few thousand inputs again and again. Each input is computed alone and without padding, so
    that its vector depends on the input alone.

    Args:
        network: Network that maps inputs [n, ...] to vectors [n, size].
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self._known: dict[bytes, Tensor] = {}

    def forward(self, x: Inputs) -> Tensor:
        """Map inputs [n, ...] to vectors [n, size]."""
        return torch.stack([self._vector(_alone(x, place)) for place in range(count(x))])

    def _vector(self, x: Inputs) -> Tensor:
        key = _key(x)
        if key not in self._known:
            with torch.no_grad():
                self._known[key] = self.network(x)[0]
        return self._known[key]


def _alone(x: Inputs, place: int) -> Inputs:
    """One input [1, ...], of a padded one what its mask keeps."""
    one: Inputs = mapped(lambda part: part[place : place + 1], x)
    if not isinstance(one, dict) or MASK not in one:
        return one
    longest, length = one[MASK].shape[1], int(one[MASK].sum())
    return {name: part[:, :length] if part.shape[1:2] == (longest,) else part for name, part in one.items()}


def _key(x: Inputs) -> bytes:
    parts = sorted(x.items()) if isinstance(x, dict) else [("", x)]
    digest = sha256()
    for name, part in parts:
        digest.update(f"{name} {tuple(part.shape)} {part.dtype} ".encode())
        digest.update(part.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.digest()
