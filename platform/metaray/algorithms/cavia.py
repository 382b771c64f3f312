"""Fast context adaptation via meta-learning."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.inner_loop import split_statistics, steps_of, with_statistics
from metaray.algorithms.parts import join, without
from metaray.algorithms.problem import Problem
from metaray.episodes.tensors import Examples
from metaray.errors import InputError
from metaray.models.batch_norm import EpisodicBatchNorm

CONTEXT = "context"
MODULATION = "modulation:"
CONV_LAYER = 3


class CAVIA(Algorithm):
    """CAVIA: a task is learned into a small context vector; the network itself stays as it is.

    Zintgraf, Shiarlis, Kurin, Hofmann and Whiteson ("Fast context adaptation via meta-learning", ICML 2019,
    arXiv:1810.03642, equations 2 and 3): from phi_0 = 0,

        phi_i = phi_0 - alpha * grad_phi L_s(phi_0, theta)
        theta <- theta - beta * grad_theta sum_i L_q(phi_i, theta)

    phi reaches the network at one layer. At a convolution it modulates the feature maps (FiLM, section 4.3: scale and
    shift of each channel are linear in phi). At a linear layer W phi is added to its output: with the first layer that
    is the same as handing phi to the network beside the input (section 4.2). Where batch norm comes right after the
    layer, phi enters after that, or its shift would be subtracted again.

    Departures: the layer is found by its kind, unless named: the third convolution (as in the paper) or the last if
    there are fewer, else the first linear layer. The scale is 1 + linear(phi), so that phi = 0 changes nothing whatever
    the weights; the modulation's biases are therefore left out.

    Attributes:
        inner_lr: alpha.
        inner_steps: gradient steps of phi on the support set.
        context_size: numbers in phi.
        layer: name of the convolution or linear layer after which phi enters; None finds it.
    """

    kind: ClassVar[str] = "cavia"
    gradient_steps: ClassVar[bool] = True
    regression: ClassVar[bool] = True

    inner_lr: float = Field(default=1.0, ge=0)
    inner_steps: int = Field(default=2, ge=0)
    context_size: int = Field(default=100, gt=0)
    layer: str | None = None

    @property
    def differentiates_twice(self) -> bool:
        """Of the gradient with respect to phi."""
        return True

    def init(self, network: nn.Module, problem: Problem) -> Tensors:
        """The network's parameters, and the weights through which phi enters.

        Raises:
            InputError: if there is no such layer.
        """
        layer, _ = self._layer(network)
        channels = layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
        weights = {"shift": torch.empty(channels, self.context_size)}
        if isinstance(layer, nn.Conv2d):
            weights["scale"] = torch.empty(channels, self.context_size)
        for weight in weights.values():
            nn.init.xavier_uniform_(weight)
        return join(super().init(network, problem), {MODULATION: weights})

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """phi of one task, and under inductive batch norm the support set's statistics there."""

        def loss(at: Tensors) -> Tensor:
            return context.loss(self._output(meta, at[CONTEXT], support.x, context), support.y)

        phi = next(iter(meta.values())).new_zeros(self.context_size)
        for _ in range(steps_of(self.inner_steps, context)):
            gradient = context.gradient(loss, {CONTEXT: phi}, differentiable=context.training)[CONTEXT]
            phi = phi - self.inner_lr * gradient
            phi = phi if context.training else phi.detach()
        if self.batch_norm == "transductive":
            return {CONTEXT: phi}
        with self._modulated(meta, phi, context):
            found = with_statistics(without(meta, MODULATION), support, context, self.batch_norm)
        return {CONTEXT: phi} | {name: value for name, value in found.items() if name not in meta}

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """The network, told phi."""
        _, statistics = split_statistics(adapted)
        return self._output(meta, adapted[CONTEXT], x, context, statistics)

    def _output(
        self, meta: Tensors, phi: Tensor, x: Tensor, context: Context, statistics: Tensors | None = None
    ) -> Tensor:
        with self._modulated(meta, phi, context):
            return context.forward(without(meta, MODULATION), x, statistics)

    @contextmanager
    def _modulated(self, meta: Tensors, phi: Tensor, context: Context) -> Iterator[None]:
        """Within the block, phi enters the network."""
        shift = meta[MODULATION + "shift"] @ phi

        def enter(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            if MODULATION + "scale" not in meta:
                return output + shift.to(output.dtype)
            scale = 1 + meta[MODULATION + "scale"] @ phi
            return output * scale.to(output.dtype)[:, None, None] + shift.to(output.dtype)[:, None, None]

        _, entrance = self._layer(context.network)
        handle = entrance.register_forward_hook(enter)
        try:
            yield
        finally:
            handle.remove()

    def _layer(self, network: nn.Module) -> tuple[nn.Conv2d | nn.Linear, nn.Module]:
        """The layer, and the module after which phi enters: the layer, or the batch norm that follows it."""
        leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
        after = dict(zip([name for name, _ in leaves], [module for _, module in leaves[1:]], strict=False))
        layers = {name: module for name, module in leaves if isinstance(module, nn.Conv2d | nn.Linear)}
        name = self._named(layers)
        follower = after.get(name)
        return layers[name], follower if isinstance(follower, EpisodicBatchNorm) else layers[name]

    def _named(self, layers: dict[str, nn.Conv2d | nn.Linear]) -> str:
        if self.layer is not None:
            if self.layer not in layers:
                listed = ", ".join(layers) or "none"
                raise InputError(f"cavia: layer {self.layer!r} is no convolution or linear layer. There are: {listed}")
            return self.layer
        if not layers:
            raise InputError("cavia: the network has no convolution or linear layer at which a context could enter")
        convolutions = [name for name, layer in layers.items() if isinstance(layer, nn.Conv2d)]
        return convolutions[min(CONV_LAYER, len(convolutions)) - 1] if convolutions else next(iter(layers))
