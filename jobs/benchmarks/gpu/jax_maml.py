"""MAML of the same Conv4 in JAX, as one would write it there: `jit(grad(vmap))`. Imports JAX, so it is imported late.

JAX has no types that are checked here: arrays are Any. An environment that has JAX and not metaray imports this, too.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

BLOCKS, EPS = 4, 1e-5
Parameters = dict[str, Any]
Episode = tuple[Any, Any, Any, Any]
"""Inputs and labels of the support, then of the query; with a leading axis those of a meta-batch."""


def forward(parameters: Parameters, x: Any) -> Any:
    """Logits [n, N] of images [n, channels, height, width]; the parameters are named as metaray's."""
    return linear(parameters, embedded(parameters, x))


def embedded(parameters: Parameters, x: Any, dtype: Any = jnp.float32) -> Any:
    """What the head sees of images, [n, embedding]; `dtype` is that of the convolutions."""
    for block in range(BLOCKS):
        name = f"body.{block}"
        weight = parameters[f"{name}.conv.weight"].astype(dtype)
        x = lax.conv_general_dilated(
            x.astype(dtype), weight, (1, 1), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW")
        )
        x = x.astype(jnp.float32) + parameters[f"{name}.conv.bias"][None, :, None, None]
        mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
        scale, shift = (parameters[f"{name}.norm.{part}"][None, :, None, None] for part in ("weight", "bias"))
        x = jax.nn.relu((x - mean) * lax.rsqrt(variance + EPS) * scale + shift)
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return x.reshape(len(x), -1)


def linear(parameters: Parameters, x: Any) -> Any:
    """The head, on what the body made."""
    return x @ parameters["head.weight"].T + parameters["head.bias"]


def cross_entropy(logits: Any, y: Any) -> Any:
    """The mean over examples."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1).mean()


def query_loss(parameters: Parameters, episode: Episode, rate: float, steps: int) -> Any:
    """The query's loss of one task after some inner steps on its support set."""
    support_x, support_y, query_x, query_y = episode
    parameters = descended(
        parameters, lambda theta: cross_entropy(forward(theta, support_x), support_y), rate=rate, steps=steps
    )
    return cross_entropy(forward(parameters, query_x), query_y)


def descended(
    parameters: Parameters, loss: Callable[[Parameters], Any], *, rate: float, steps: int, first_order: bool = False
) -> Parameters:
    """The parameters after some steps down a loss; in first order the slopes count as constants."""
    for _ in range(steps):
        slope = jax.grad(loss)(parameters)
        if first_order:
            slope = lax.stop_gradient(slope)
        parameters = jax.tree.map(lambda value, by: value - rate * by, parameters, slope)
    return parameters


class MetaGradient:
    """The compiled meta-gradient.

    Args:
        parameters: initial ones, by metaray's names.
        episodes: support and query of a meta-batch, each x and y, with a leading axis.
        loss: the query's loss of one task, as a function of the parameters.
        precision: of matrix products and convolutions: "float32" or "tensorfloat32" where a GPU is.
    """

    def __init__(
        self,
        parameters: dict[str, NDArray[np.float32]],
        episodes: tuple[NDArray[Any], ...],
        *,
        loss: Callable[[Parameters, Any], Any],
        precision: str = "float32",
    ) -> None:
        self._parameters = {name: jnp.asarray(value) for name, value in parameters.items()}
        self._episodes = tuple(jnp.asarray(array) for array in episodes)

        def total(theta: Parameters, given: Any) -> tuple[Any, Any]:
            losses = jax.vmap(partial(loss, theta))(given)
            return losses.sum(), losses

        with jax.default_matmul_precision(precision):
            traced = jax.jit(jax.value_and_grad(total, has_aux=True)).lower(self._parameters, self._episodes)
            self._run = traced.compile()

    def losses(self) -> NDArray[np.float32]:
        """The query's loss of each episode."""
        (_, losses), _ = self._run(self._parameters, self._episodes)
        return np.asarray(losses)

    def gradient(self) -> dict[str, NDArray[np.float32]]:
        """Summed over the episodes; waits for it."""
        _, gradient = self._run(self._parameters, self._episodes)
        return {name: np.asarray(value) for name, value in gradient.items()}

    def step(self) -> None:
        """Take the gradient, and leave it where it is; waits for it."""
        jax.block_until_ready(self._run(self._parameters, self._episodes))


def device() -> str:
    """What JAX computes on."""
    return str(jax.devices()[0].device_kind)
