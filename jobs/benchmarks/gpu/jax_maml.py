"""MAML of the same Conv4 in JAX, as one would write it there: `jit(grad(vmap))`. Imports JAX, so it is imported late.

JAX has no types that are checked here: arrays are Any.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

BLOCKS, EPS = 4, 1e-5
Parameters = dict[str, Any]


def forward(parameters: Parameters, x: Any) -> Any:
    """Logits [n, N] of images [n, channels, height, width]; the parameters are named as metaray's."""
    for block in range(BLOCKS):
        name = f"body.{block}"
        x = lax.conv_general_dilated(
            x, parameters[f"{name}.conv.weight"], (1, 1), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW")
        )
        x = x + parameters[f"{name}.conv.bias"][None, :, None, None]
        mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
        scale, shift = (parameters[f"{name}.norm.{part}"][None, :, None, None] for part in ("weight", "bias"))
        x = jax.nn.relu((x - mean) * lax.rsqrt(variance + EPS) * scale + shift)
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return x.reshape(len(x), -1) @ parameters["head.weight"].T + parameters["head.bias"]


def cross_entropy(logits: Any, y: Any) -> Any:
    """The mean over examples."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1).mean()


def query_loss(parameters: Parameters, episode: tuple[Any, Any, Any, Any], rate: float, steps: int) -> Any:
    """The query's loss of one task after some inner steps on its support set."""
    support_x, support_y, query_x, query_y = episode
    for _ in range(steps):
        slope = jax.grad(lambda theta: cross_entropy(forward(theta, support_x), support_y))(parameters)
        parameters = jax.tree.map(lambda value, by: value - rate * by, parameters, slope)
    return cross_entropy(forward(parameters, query_x), query_y)


class Maml:
    """The compiled meta-gradient.

    Args:
        parameters: initial ones, by metaray's names.
        episodes: support and query of a meta-batch, each x and y, with a leading axis.
        rate: of inner steps.
        steps: of them.
        precision: of matrix products and convolutions: "float32" or "tensorfloat32" where a GPU is.
    """

    def __init__(
        self,
        parameters: dict[str, NDArray[np.float32]],
        episodes: tuple[NDArray[Any], ...],
        *,
        rate: float,
        steps: int,
        precision: str,
    ) -> None:
        self._parameters = {name: jnp.asarray(value) for name, value in parameters.items()}
        self._episodes = tuple(jnp.asarray(array) for array in episodes)

        def total(theta: Parameters, given: Any) -> tuple[Any, Any]:
            losses = jax.vmap(lambda episode: query_loss(theta, episode, rate, steps))(given)
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
