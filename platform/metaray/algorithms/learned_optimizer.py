"""A learned optimiser in the inner loop."""

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.adapts import EVERYTHING, Adapts, adapting
from metaray.algorithms.families.inner_loop import predict_at, steps_of, support_loss, with_statistics
from metaray.algorithms.families.prefixes import join, part, without
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples
from metaray.errors import InputError

OPTIMIZER = "optimizer:"
LAYERS = 2
OUTPUT_SHRINKAGE = 0.1

State = list[tuple[Tensor, Tensor]]


class LearnedOptimizer(Algorithm):
    """Learned optimiser: an LSTM looks at the gradients and says how to step.

    Andrychowicz et al. ("Learning to learn by gradient descent by gradient descent", NeurIPS 2016, arXiv:1606.04474,
    equations 1 to 3): on the support loss L_s of a task

        theta_{t+1} = theta_t + g_t,    (g_t, h_{t+1}) = m(grad L_s(theta_t), h_t; phi)

    m is an LSTM of two layers, applied to each parameter by itself: all share phi, each has a state h of its own
    (section 2.1, "coordinatewise"). What it sees of a gradient d is (appendix A)

        (log|d| / p, sign d)    where |d| >= exp(-p),    else (-1, exp(p) d)

    and its output is multiplied by `scale`. The gradients d enter as constants (section 2.1, the dashed edges of figure
    2), so the meta-gradient holds no second derivatives of the network unless `second_order` asks for them.

    Departures: (1) theta_0 is meta-learned with phi (the paper draws a new one for each run). (2) The loss is that of
    the query after the last step, instead of the sum of losses along the trajectory (equation 3, w_t = 1). (3) An LSTM
    layer has one bias, and the output layer starts 10 times smaller than torch would have it, so that an untrained
    optimiser makes small steps.

    For each parameter of the network, a step costs about 5,000 multiplications and, in training, 2 kB of memory:
    choose a small network.

    Example:
        >>> LearnedOptimizer(inner_steps=5).differentiates_twice
        False

    Attributes:
        inner_steps: Number of steps of the learned optimiser on the support set.
        hidden: Number of units of each LSTM layer.
        scale: Factor on the LSTM's output.
        preprocessing: Constant p of the gradient preprocessing.
        second_order: Whether to differentiate through the inner gradients.
        adapts: Patterns of the parameters that the learned optimiser steps; the others are meta-learned and stay as
            they are.
    """

    kind: ClassVar[str] = "learned_optimizer"
    gradient_steps: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = False
    left_out_of_json: ClassVar[tuple[str, ...]] = ("adapts",)

    inner_steps: int = Field(default=5, ge=0)
    hidden: int = Field(default=20, gt=0)
    scale: float = Field(default=0.1, gt=0)
    preprocessing: float = Field(default=10, gt=0)
    second_order: bool = False
    adapts: Adapts = EVERYTHING

    @property
    def differentiates_twice(self) -> bool:
        """Whether the inner gradients are differentiated again: `second_order`."""
        return self.second_order

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """The initial parameters theta_0 of the network, and phi of the learned optimiser.

        Raises:
            InputError: If the network has no parameters to step, or a pattern of `adapts` fits none of them.
        """
        bound = 1 / math.sqrt(self.hidden)
        sizes = {"0.": (4 * self.hidden, 2 + self.hidden), "1.": (4 * self.hidden, 2 * self.hidden)}
        phi: Tensors = {}
        for name, shape in (sizes | {"output.": (1, self.hidden)}).items():
            shrinkage = OUTPUT_SHRINKAGE if name == "output." else 1
            phi[name + "weight"] = torch.empty(shape).uniform_(-bound, bound) * shrinkage
            phi[name + "bias"] = torch.empty(shape[0]).uniform_(-bound, bound) * shrinkage
        theta = super().init(network, task_shape)
        if not theta:
            raise InputError("learned_optimizer: the network has no parameter that is not frozen, so nothing can adapt")
        adapting(self.adapts, list(theta), network)
        return join(theta, {OPTIMIZER: phi})

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """Step the parameters by the learned optimiser, to theta after the last step.

        Under inductive batch norm the statistics of the support set at that theta are returned, too.
        """
        whole, phi = without(meta, OPTIMIZER), part(meta, OPTIMIZER)
        theta = {name: whole[name] for name in adapting(self.adapts, list(whole), context.network)}
        of_whole = support_loss(support, context, second_order=self.second_order)
        loss = lambda some: of_whole({**whole, **some})  # noqa: E731
        state: State = []
        for _ in range(steps_of(self.inner_steps, context)):
            gradient = context.gradient(loss, theta, differentiable=self.second_order and context.training)
            flat = torch.cat([gradient[name].flatten() for name in theta])
            step, state = self._step(phi, flat, state)
            pieces = torch.split(step, [value.numel() for value in theta.values()])
            theta = {
                name: value + piece.view_as(value) for (name, value), piece in zip(theta.items(), pieces, strict=True)
            }
            if not context.training:
                theta = {name: value.detach() for name, value in theta.items()}
        return with_statistics({**whole, **theta}, support, context, self.batch_norm)

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """Predict with the network at the theta that `adapt` returned."""
        return predict_at(adapted, x, context)

    def _step(self, phi: Tensors, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        """g_t [P] and the LSTM's next state, from a gradient [P] and the state, at first empty."""
        zero = gradient.new_zeros(len(gradient), self.hidden)
        signal, after = preprocessed(gradient, self.preprocessing), State()
        for layer, (h, c) in enumerate(state or [(zero, zero)] * LAYERS):
            after.append(lstm_cell(phi[f"{layer}.weight"], phi[f"{layer}.bias"], signal, h, c))
            signal = after[-1][0]
        return self.scale * nn.functional.linear(signal, phi["output.weight"], phi["output.bias"])[:, 0], after


def preprocessed(gradient: Tensor, p: float) -> Tensor:
    """Preprocess a gradient: two numbers for each coordinate, [P, 2] (appendix A of the paper)."""
    threshold = math.exp(-p)
    large = gradient.abs() >= threshold
    # Clamped first: where() passes the derivative of the branch not taken on as 0 * inf.
    size = torch.where(large, gradient.abs().clamp(min=threshold).log() / p, -1.0)
    direction = torch.where(large, gradient.sign(), gradient * math.exp(p))
    return torch.stack([size, direction], dim=-1)


def lstm_cell(weight: Tensor, bias: Tensor, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One step of an LSTM layer (Hochreiter and Schmidhuber, 1997): the next states h and c.

    Written out because `torch.vmap` does not know the fused kernel.

    Args:
        weight: Weights [4 * hidden, inputs + hidden], gates in torch's order: input, forget, cell, output.
        bias: Bias [4 * hidden].
        x: Inputs [P, inputs].
        h: Hidden states [P, hidden].
        c: Cell states [P, hidden].
    """
    i, f, g, o = nn.functional.linear(torch.cat([x, h], dim=-1), weight, bias).chunk(4, dim=-1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c
