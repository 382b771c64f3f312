"""How inner steps follow from gradients: plain, with momentum, or Adam's. `INNER_OPTIMIZERS` is the explicit dict.

Each is a pure function of a gradient and of what it remembers, in arithmetic that can be differentiated twice and
mapped over by `torch.vmap`. What it remembers starts at zero with each task; in second order meta-gradients run through
it as well.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from metaray.config import Config
from metaray.imports import reads_kind, writes_kind

Tensors = dict[str, Tensor]
State = dict[str, Tensors]
"""State of an inner optimiser: several kinds of memory, each by parameter name."""

FIRST, SECOND, POWERS, VELOCITY = "first", "second", "powers", "velocity"


class InnerOptimizer(Config):
    """An update rule for inner steps: theta' = theta - alpha * direction.

    The learning rates alpha are those of the algorithm, by its parameter patterns.
    """

    kind: ClassVar[str]

    @abstractmethod
    def begin(self, theta: Tensors) -> State:
        """The optimiser's state before the first inner step of a task.

        Args:
            theta: The parameters that inner steps will change, by name.
        """

    @abstractmethod
    def directions(self, gradient: Tensors, state: State) -> tuple[Tensors, State]:
        """The direction of each parameter, and the optimiser's new state.

        Args:
            gradient: Gradient of the support loss, by parameter name.
            state: The optimiser's state so far; not modified.
        """


class InnerSGD(InnerOptimizer):
    """Gradient descent: the direction is the gradient itself."""

    kind: ClassVar[str] = "sgd"

    def begin(self, theta: Tensors) -> State:
        """An empty state."""
        return {}

    def directions(self, gradient: Tensors, state: State) -> tuple[Tensors, State]:
        """The gradient as the direction, and an empty state."""
        return gradient, state


class InnerMomentum(InnerOptimizer):
    """Gradient descent with momentum (Polyak, 1964), in torch.optim.SGD's form: with v_0 = 0

        v_t = momentum * v_{t-1} + g_t,    direction = v_t

    Attributes:
        momentum: Share of the velocity that is kept from step to step.
    """

    kind: ClassVar[str] = "momentum"

    momentum: float = Field(default=0.9, ge=0, lt=1)

    def begin(self, theta: Tensors) -> State:
        """Velocities of zero, one for each parameter."""
        return {VELOCITY: _zeros(theta)}

    def directions(self, gradient: Tensors, state: State) -> tuple[Tensors, State]:
        """The new velocities, both as the direction and as the state."""
        velocity = {name: self.momentum * state[VELOCITY][name] + g for name, g in gradient.items()}
        return velocity, {VELOCITY: velocity}


class InnerAdam(InnerOptimizer):
    """Adam, differentiable: Kingma and Ba ("Adam: a method for stochastic optimization", ICLR 2015, algorithm 1),

        m_t = beta_1 m_{t-1} + (1 - beta_1) g_t,    v_t = beta_2 v_{t-1} + (1 - beta_2) g_t^2
        direction = (m_t / (1 - beta_1^t)) / sqrt(v_t / (1 - beta_2^t) + eps)

    Departure: eps is added under the root (the paper adds its square root, so to speak, after it). The root's slope at
    zero is infinite, and times the zero slope of g^2 there no number; so the derivative of the direction exists
    everywhere. Where all gradients so far are zero, as those of `lora_a` are at a task's first step, it is at most
    1 / sqrt(eps): meta-gradients in second order are that many times the Hessian. A larger eps makes them tamer.

    Attributes:
        betas: Decay rates beta_1 and beta_2 of the running means of the gradient and of its square.
        eps: Number eps added under the root.
    """

    kind: ClassVar[str] = "adam"

    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)

    def begin(self, theta: Tensors) -> State:
        """First and second moments of zero, and the powers of both betas, which start at 1."""
        like = next(iter(theta.values()), torch.zeros(()))
        ones = {name: torch.ones((), dtype=like.dtype, device=like.device) for name in (FIRST, SECOND)}
        return {FIRST: _zeros(theta), SECOND: _zeros(theta), POWERS: ones}

    def directions(self, gradient: Tensors, state: State) -> tuple[Tensors, State]:
        """The directions and moments by the equations of the class."""
        (beta1, beta2), before = self.betas, state[POWERS]
        powers = {FIRST: before[FIRST] * beta1, SECOND: before[SECOND] * beta2}
        first = {name: beta1 * state[FIRST][name] + (1 - beta1) * g for name, g in gradient.items()}
        second = {name: beta2 * state[SECOND][name] + (1 - beta2) * g.square() for name, g in gradient.items()}
        unbiased1, unbiased2 = 1 - powers[FIRST], 1 - powers[SECOND]
        found = {name: first[name] / unbiased1 * torch.rsqrt(second[name] / unbiased2 + self.eps) for name in gradient}
        return found, {FIRST: first, SECOND: second, POWERS: powers}


INNER_OPTIMIZERS: dict[str, type[InnerOptimizer]] = {"sgd": InnerSGD, "momentum": InnerMomentum, "adam": InnerAdam}

PLAIN = InnerSGD()


def _by_name(value: Any) -> Any:
    """A kind alone has its defaults."""
    return {"kind": value} if isinstance(value, str) else value


StepsBy = Annotated[
    InnerOptimizer,
    reads_kind(INNER_OPTIMIZERS, InnerOptimizer, what="inner optimiser"),
    BeforeValidator(_by_name),
    writes_kind(INNER_OPTIMIZERS),
]
"""Type of a field that holds an inner optimiser: `InnerAdam()`, or in JSON its name, alone or with its fields."""


def _zeros(theta: Mapping[str, Tensor]) -> Tensors:
    return {name: torch.zeros_like(value) for name, value in theta.items()}
