"""Low-rank adaptation: few trained numbers beside the frozen weights of a model's linear layers."""

from fnmatch import fnmatchcase
from math import sqrt
from typing import Annotated, ClassVar, Self, cast

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from metaray.config import replace
from metaray.data.names import some
from metaray.data.preprocessing import Preprocessing
from metaray.data.ragged import FeatureShape
from metaray.errors import InputError, unknown
from metaray.imports import reads_kind, writes_kind
from metaray.models.batch_norm import normalises_batches
from metaray.models.encoders.encoder import Encoder
from metaray.models.model import Model
from metaray.models.patterns import Patterns, SomePatterns

WRAPPED: dict[str, type[Model]] = {}
"""Models that can be wrapped, by kind: all other models (the package fills them in); others by their import path."""
HEAD = "head.*"
SHOWN = 8
BYPASSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
"""Modules of torch that use the weights of their layers without always calling these layers."""


class LoRA(Model):
    """A model whose linear layers are adapted by trained low-rank matrices, while their weights stay frozen.

    Hu et al. ("LoRA: low-rank adaptation of large language models", ICLR 2022, arXiv:2106.09685, section 4.1): a layer
    of weights W [out, in] computes

        h = W x + alpha / rank * B A x,    A [rank, in],    B [out, rank]

    where W stays and A and B are trained. B starts at zero, so that the network computes what it did; A at random, here
    normal with variance 1 / in. The parameters of a layer are named `lora_a` and `lora_b` beside its own `weight` and
    `bias`, so `adapts=("*.lora_*", "head.*")` is what a task changes, and `*.lora_*` what a rate is for.

    Everything else of the model is frozen, but for what `trained` names: so meta-parameters, and with them checkpoints,
    are these few; a learner has the frozen weights beside them.

    Attributes:
        model: The model to adapt, pretrained or not.
        targets: Patterns (`fnmatch`) of the names of the adapted linear layers, such as `*.query` or `body.*`.
        rank: Rank of the product B A.
        alpha: Scale alpha; the product is multiplied by alpha / rank.
        trained: Patterns of the model's own parameters that are trained as well. By default those of its head, which is
            not pretrained for the classes of a new task.
    """

    kind: ClassVar[str] = "lora"

    model: Annotated[Model, reads_kind(WRAPPED, Model, what="model"), writes_kind(WRAPPED)]
    targets: SomePatterns
    rank: int = Field(default=8, gt=0)
    alpha: float = Field(default=16.0, gt=0)
    trained: Patterns = (HEAD,)

    @field_validator("model")
    @classmethod
    def _once(cls, model: Model) -> Model:
        if isinstance(model, LoRA):
            raise ValueError("a lora model is wrapped already: give it more targets, or a higher rank")
        return model

    @property
    def held(self) -> Self:
        """See `Model.held`."""
        return replace(self, model=self.model.held)

    def check_start(self) -> None:
        """See `Model.check_start`."""
        self.model.check_start()

    def build(self, feature_shape: FeatureShape, outputs: int | None) -> nn.Module:
        """See `Model.build`.

        Raises:
            InputError: If `Model.build` of the model refuses, a target is no linear layer that could be wrapped, or too
                thin for the rank, or a pattern fits nothing.
        """
        return self._wrapped(self.model.build(feature_shape, outputs), outputs)

    def build_for(
        self, feature_shape: FeatureShape, outputs: int | None, preprocessing: Preprocessing | None
    ) -> nn.Module:
        """See `build`."""
        return self._wrapped(self.model.build_for(feature_shape, outputs, preprocessing), outputs)

    def _wrapped(self, network: nn.Module, outputs: int | None) -> nn.Module:
        if isinstance(self.model, Encoder) and normalises_batches(network):
            raise InputError(
                "lora: the batch norms of an encoder that is not frozen go by the batch at hand, and would be frozen "
                "so; leave frozen=True, so that they go by the statistics that are stored with them"
            )
        layers = self._layers(network)
        self._freeze(network, outputs)
        for name, layer in layers.items():
            if self.rank > min(layer.in_features, layer.out_features):
                raise InputError(
                    f"lora: rank {self.rank} is no low one for layer {name!r} of {layer.in_features} inputs and "
                    f"{layer.out_features} outputs: at most {min(layer.in_features, layer.out_features)}"
                )
            _become(layer, self.rank, self.alpha / self.rank)
        return network

    def _layers(self, network: nn.Module) -> dict[str, nn.Linear]:
        """The layers that are wrapped, by name."""
        modules = dict(network.named_modules())
        known = {name: module for name, module in modules.items() if name and isinstance(module, nn.Linear)}
        for pattern in self.targets:
            if any(fnmatchcase(name, pattern) for name in known):
                continue
            if not known:
                raise InputError(f"lora: the model {self.model.kind} has no linear layer that {pattern!r} could fit")
            if any(fnmatchcase(name, pattern) for name in modules):
                raise InputError(
                    f"lora: target {pattern!r} fits no linear layer, but other modules. Linear layers: "
                    f"{some(sorted(known), SHOWN)}"
                )
            raise unknown("lora target", pattern, known)
        found = {name: one for name, one in known.items() if any(fnmatchcase(name, each) for each in self.targets)}
        for name, layer in found.items():
            _check(name, layer, modules)
        return found

    def _freeze(self, network: nn.Module, outputs: int | None) -> None:
        own = dict(network.named_parameters())
        for pattern in self.trained:
            fitting = [name for name in own if fnmatchcase(name, pattern)]
            if not fitting and (pattern != HEAD or outputs is not None):
                raise unknown("pattern of lora's trained", pattern, own)
            if fitting and pattern != HEAD and not any(own[name].requires_grad for name in fitting):
                raise InputError(
                    f"lora: trained {pattern!r} fits frozen parameters of the model alone: {some(fitting, SHOWN)}. Let "
                    "them require grad (an encoder: frozen=False; what is not named is frozen all the same)"
                )
        for name, parameter in own.items():
            kept = parameter.requires_grad and any(fnmatchcase(name, pattern) for pattern in self.trained)
            parameter.requires_grad_(kept)


class LoRALinear(nn.Linear):
    """A linear layer with a trained low-rank matrix added to its frozen weights; `LoRA` replaces layers by it."""

    lora_a: nn.Parameter
    lora_b: nn.Parameter
    scaling: float

    def forward(self, x: Tensor) -> Tensor:
        """W x + bias + scaling * B A x, [..., in] to [..., out]."""
        product = functional.linear(functional.linear(x, self.lora_a), self.lora_b)
        return functional.linear(x, self.weight, self.bias) + self.scaling * product


def _check(name: str, layer: nn.Linear, modules: dict[str, nn.Module]) -> None:
    """Refuse layers whose outputs are not what this would add to, or not by themselves."""
    around = modules[name.rpartition(".")[0]]
    if isinstance(around, BYPASSED):
        raise InputError(
            f"lora: {name!r} is part of torch's {type(around).__name__}, which computes with its weights without "
            "calling it, so that what is added would be passed by: write that layer out, with torch.nn.Linear"
        )
    if type(layer).forward is not nn.Linear.forward or "forward" in vars(layer):
        raise InputError(
            f"lora: {name!r} is a {type(layer).__name__}, which may compute something of its own: only what has the "
            "forward of torch.nn.Linear can be wrapped"
        )


def _become(layer: nn.Linear, rank: int, scaling: float) -> None:
    """Change the class of a layer, and add what is trained: its own parameters keep their names."""
    like, cls = layer.weight, type(layer)
    own = cls is not nn.Linear  # whatever else such a class has, stays
    layer.__class__ = type(LoRALinear.__name__, (LoRALinear, cls), {}) if own else LoRALinear
    made = cast(LoRALinear, layer)
    made.scaling = scaling
    first = torch.randn(rank, layer.in_features) / sqrt(layer.in_features)
    made.lora_a = nn.Parameter(first.to(like.dtype))
    made.lora_b = nn.Parameter(torch.zeros(layer.out_features, rank, dtype=like.dtype))
