"""Networks as users bring them, by import path: what they hold, keep and compute varies."""

import math
import os
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, spectral_norm

from metaray.models import Custom

WIDTH = 8
TABLE = "METARAY_TEST_TABLE"
"""Names the file that some networks read when they are built."""


def own(name: str, **options: Any) -> Custom:
    return Custom(path=f"{__name__}:{name}", options=options)


class Plain(nn.Module):
    """A linear layer and a head; others add something between them."""

    def __init__(self, *, feature_shape: tuple[int, ...], outputs: int | None) -> None:
        super().__init__()
        self.body = nn.Linear(math.prod(feature_shape), WIDTH)
        self.head = nn.Identity() if outputs is None else nn.Linear(WIDTH, outputs)
        self.add()

    def add(self) -> None:
        pass

    def between(self, h: Tensor) -> Tensor:
        return h

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(torch.tanh(self.between(self.body(x.flatten(1)))))
        return found


class Module(Plain):
    """With one more module."""

    def made(self) -> nn.Module:
        raise NotImplementedError

    def add(self) -> None:
        self.more = self.made()

    def between(self, h: Tensor) -> Tensor:
        found: Tensor = self.more(h)
        return found


class Repeating(Plain):
    """A block that is there twice: one module of two names."""

    def add(self) -> None:
        block = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.repeated, self.blocks = block, nn.Sequential(block, block)

    def between(self, h: Tensor) -> Tensor:
        found: Tensor = self.blocks(h)
        return found


class ByHand(Module):
    """Computes with a layer's weights without calling it, and has one of no use."""

    def made(self) -> nn.Module:
        return nn.ModuleDict({"used": nn.Linear(WIDTH, WIDTH), "spare": nn.Linear(WIDTH, WIDTH)})

    def between(self, h: Tensor) -> Tensor:
        layer = self.more.get_submodule("used")
        assert isinstance(layer, nn.Linear)
        return F.linear(h, layer.weight, layer.bias)


class TiedHead(Plain):
    """Its head has the weights of a layer that is registered before it."""

    def __init__(self, *, feature_shape: tuple[int, ...], outputs: int) -> None:
        nn.Module.__init__(self)
        self.body = nn.Linear(math.prod(feature_shape), WIDTH)
        self.words, self.head = nn.Linear(WIDTH, outputs, bias=False), nn.Linear(WIDTH, outputs)
        self.head.weight = self.words.weight

    def between(self, h: Tensor) -> Tensor:
        found: Tensor = h + self.words(h) @ self.words.weight
        return found


class Gate(nn.Linear):
    """A linear layer whose output is scaled by what somebody else has left in it."""

    gate: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.gate


class Gated(Plain):
    """Hands something on to its head in an attribute."""

    def __init__(self, *, feature_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__(feature_shape=feature_shape, outputs=None)
        self.head = Gate(WIDTH, outputs)

    def between(self, h: Tensor) -> Tensor:
        assert isinstance(self.head, Gate)
        self.head.gate = torch.sigmoid(h.sum(dim=1, keepdim=True))
        return h


class Averaging(nn.Module):
    """Running statistics of one's own."""

    average: Tensor

    def __init__(self, *, when_judged: bool = False) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(WIDTH))
        self.when_judged = when_judged

    def forward(self, h: Tensor) -> Tensor:
        if self.training != self.when_judged:
            self.average.mul_(0.9).add_(h.detach().mean(0), alpha=0.1)
        return h - self.average


class OwnStatistics(Module):
    def made(self) -> nn.Module:
        return Averaging()


class StatisticsWhenJudged(Module):
    def made(self) -> nn.Module:
        return Averaging(when_judged=True)


class FunctionalStatistics(Plain):
    mean: Tensor
    var: Tensor

    def add(self) -> None:
        self.register_buffer("mean", torch.zeros(WIDTH), persistent=False)
        self.register_buffer("var", torch.ones(WIDTH), persistent=False)

    def between(self, h: Tensor) -> Tensor:
        return F.batch_norm(h, self.mean, self.var, training=self.training)


class Spectral(Module):
    def made(self) -> nn.Module:
        return spectral_norm(nn.Linear(WIDTH, WIDTH))


class ParametrizedSpectral(Module):
    def made(self) -> nn.Module:
        return parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH))


class Clamped(Plain):
    """Weights are kept small by force."""

    def between(self, h: Tensor) -> Tensor:
        self.body.weight.data.clamp_(-0.01, 0.01)
        return h


class InPlace(Plain):
    def forward(self, x: Tensor) -> Tensor:
        x -= x.mean()
        return super().forward(x)


class LateBuffer(Plain):
    mask: Tensor

    def between(self, h: Tensor) -> Tensor:
        if not hasattr(self, "mask"):
            self.register_buffer("mask", torch.ones(WIDTH))
        return h * self.mask


class Counter(Plain):
    """Noise that wears off."""

    def add(self) -> None:
        self.calls = 0

    def between(self, h: Tensor) -> Tensor:
        self.calls += 1
        return h + (torch.randn_like(h) / self.calls if self.training else 0)


class Memory(Plain):
    """A moving average in no buffer."""

    def add(self) -> None:
        self.state = {"average": torch.zeros(WIDTH)}

    def between(self, h: Tensor) -> Tensor:
        self.state["average"] = 0.9 * self.state["average"] + 0.1 * h.detach().mean(0)
        return h - self.state["average"]


class FirstBatch(Plain):
    """Initialised by the first data that it sees."""

    def add(self) -> None:
        self.scale: Tensor | None = None

    def between(self, h: Tensor) -> Tensor:
        if self.scale is None:
            self.scale = h.detach().std()
        return h / self.scale


class AlwaysDropping(Plain):
    def between(self, h: Tensor) -> Tensor:
        return F.dropout(h, 0.5)


class ForeignNoise(Plain):
    def between(self, h: Tensor) -> Tensor:
        return h + float(np.random.rand()) if self.training else h  # noqa: NPY002


class Dropping(Module):
    def made(self) -> nn.Module:
        return nn.Sequential(nn.Dropout(0.3), nn.AlphaDropout(0.1))


class Chances(Plain):
    """Dropout whose rate depends on the input."""

    def between(self, h: Tensor) -> Tensor:
        return h * torch.bernoulli(h.detach().sigmoid()) if self.training else h


class Remembering(Plain):
    """What users keep to look at, or because it takes long: of no influence on what comes out."""

    four: Tensor

    def add(self) -> None:
        self.register_buffer("four", torch.full((WIDTH,), 4.0))
        self.mask: Tensor | None = None

    def between(self, h: Tensor) -> Tensor:
        if self.mask is None:
            self.mask = torch.ones(WIDTH, dtype=h.dtype)
        self.seen, self.size = h, len(h)
        return h * self.mask + self.four


class Single(Plain):
    """Insists on float32."""

    def between(self, h: Tensor) -> Tensor:
        return h.float() @ torch.eye(WIDTH)


class Norms(Module):
    def made(self) -> nn.Module:
        return nn.Sequential(nn.LayerNorm(WIDTH), nn.BatchNorm1d(WIDTH), nn.GroupNorm(2, WIDTH), nn.RMSNorm(WIDTH))


class Lossy(torch.autograd.Function):
    """A square whose batching rule forgets half of the derivative."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        found: Tensor = 2 * ctx.saved_tensors[0] * slope
        return found

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], x: Tensor) -> tuple[Tensor, int]:
        return x.detach() * x, in_dims[0]


class Square(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        found: Tensor = Lossy.apply(h)  # type: ignore[no-untyped-call]
        return found


class WrongInChunks(Module):
    def made(self) -> nn.Module:
        return nn.Sequential(nn.Tanh(), Square())


class Held(Plain):
    """A frozen layer, a frozen batch norm, a buffer that is saved and one that is not, all of them random."""

    def add(self) -> None:
        self.fixed, self.norm = nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH)
        assert self.norm.running_mean is not None and self.norm.running_var is not None
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        for module in (self.fixed, self.norm):
            module.requires_grad_(False)
        self.register_buffer("saved", torch.randn(WIDTH))
        self.register_buffer("made", torch.randn(WIDTH), persistent=False)
        self.attribute = torch.randn(WIDTH)

    def between(self, h: Tensor) -> Tensor:
        found: Tensor = self.norm(self.fixed(h)) * self.saved + self.made + self.attribute
        return found


class Masked(Plain):
    """A mask that is added before a softmax: zero or minus infinity."""

    mask: Tensor

    def add(self) -> None:
        mask = torch.zeros(WIDTH)
        mask[::2] = -torch.inf
        self.register_buffer("mask", mask)

    def between(self, h: Tensor) -> Tensor:
        return (h + self.mask).softmax(dim=1)


class AllFrozen(Plain):
    def add(self) -> None:
        self.requires_grad_(False)


class Reading(Plain):
    """A table from a file: a buffer that is saved with the learner or not, a frozen parameter, or a plain tensor."""

    def __init__(self, *, feature_shape: tuple[int, ...], outputs: int | None, how: str) -> None:
        self.how = how
        super().__init__(feature_shape=feature_shape, outputs=outputs)

    def add(self) -> None:
        table = load_file(os.environ[TABLE])["table"]
        if self.how == "frozen":
            self.table = nn.Parameter(table, requires_grad=False)
        elif self.how == "attribute":
            self.tables = {"first": table.numpy()}
        else:
            self.register_buffer("table", table, persistent=self.how == "persistent")

    def between(self, h: Tensor) -> Tensor:
        return h + (torch.from_numpy(self.tables["first"]) if self.how == "attribute" else self.table)


class FunctionalNorm(Plain):
    """Normalises over whatever batch it sees."""

    def between(self, h: Tensor) -> Tensor:
        return F.batch_norm(h, None, None, training=True)


class Attending(Plain):
    """Each example looks at the others."""

    def between(self, h: Tensor) -> Tensor:
        return h + (h @ h.T).softmax(dim=-1) @ h


class WholeNumber(nn.Module):
    """Reckons with the number of outputs: None and 0 are no numbers for it."""

    def __init__(self, *, feature_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.share = 1 / outputs
        self.body = nn.Linear(math.prod(feature_shape), 2 * outputs)
        self.head = nn.Linear(2 * outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(torch.tanh(self.body(x.flatten(1)))) * self.share
        return found


class Counted(Plain):
    """Counts how often it is built; it can't be without an output layer."""

    built = 0

    def add(self) -> None:
        assert isinstance(self.head, nn.Linear)
        Counted.built += 1
