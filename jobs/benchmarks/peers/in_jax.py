"""JAX on the CPU: a meta-gradient that is compiled whole, jit(grad(vmap)), without an outer step.

JAX has no types that are checked here: arrays are Any.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jobs.benchmarks.gpu.jax_maml import (
    Episode,
    MetaGradient,
    Parameters,
    cross_entropy,
    descended,
    embedded,
    linear,
)
from jobs.benchmarks.peers.learner import Outcome, Refused
from jobs.benchmarks.peers.wire import SIDES, WEIGHT, Arrays, Method

PACKAGES = ("jax", "jaxlib")
LOG_REGULARIZER, SCALE = "ridge:log_regularizer", "ridge:scale"
"""As metaray names R2D2's own parameters."""
HEAD = "head."
Loss = Callable[[Parameters, Episode], Any]


class Learner:
    """Meta-gradients of one meta-batch.

    Args:
        loss: of one task.
        arrays: weights and episodes.
    """

    def __init__(self, loss: Loss, arrays: Arrays) -> None:
        weights = {name.removeprefix(WEIGHT): array for name, array in arrays.items() if name.startswith(WEIGHT)}
        episodes = tuple(arrays[side] for side in SIDES)
        self._count = len(episodes[0])
        self._compiled = MetaGradient(weights, episodes, loss=loss)

    def outcome(self) -> Outcome:
        """The mean loss, and the norm of its gradient."""
        flat = np.concatenate([value.ravel() for value in self._compiled.gradient().values()])
        return Outcome(float(self._compiled.losses().mean()), float(np.linalg.norm(flat / self._count)))

    def step(self) -> None:
        """The meta-gradient."""
        self._compiled.step()


def build(method: Method, arrays: Arrays) -> Learner:
    """What computes it.

    Raises:
        Refused: for a kind that is not written here.
    """
    if method.kind not in LOSSES:
        raise Refused(f"{method.kind} is not written in JAX here")
    body = partial(embedded, dtype=jnp.bfloat16 if method.dtype == "bfloat16" else jnp.float32)
    return Learner(partial(LOSSES[method.kind], method, body), arrays)


def maml(method: Method, body: Callable[..., Any], parameters: Parameters, episode: Episode) -> Any:
    """MAML and FOMAML."""
    support_x, support_y, query_x, query_y = episode

    def output(theta: Parameters, x: Any) -> Any:
        return linear(theta, body(theta, x))

    fast = descended(
        parameters,
        lambda theta: cross_entropy(output(theta, support_x), support_y),
        rate=method.rate,
        steps=method.steps,
        first_order=method.kind == "fomaml",
    )
    return cross_entropy(output(fast, query_x), query_y)


def anil(method: Method, body: Callable[..., Any], parameters: Parameters, episode: Episode) -> Any:
    """The head alone takes steps; the features are computed once."""
    support_x, support_y, query_x, query_y = episode
    features = body(parameters, support_x)
    head = {name: value for name, value in parameters.items() if name.startswith(HEAD)}
    fast = descended(
        head, lambda theta: cross_entropy(linear(theta, features), support_y), rate=method.rate, steps=method.steps
    )
    return cross_entropy(linear(fast, body(parameters, query_x)), query_y)


def _sides(body: Callable[..., Any], parameters: Parameters, episode: Episode) -> tuple[Any, Any]:
    """Support and query, embedded together."""
    shots = len(episode[0])
    both = body(parameters, jnp.concatenate([episode[0], episode[2]]))
    return both[:shots], both[shots:]


def protonet(method: Method, body: Callable[..., Any], parameters: Parameters, episode: Episode) -> Any:
    """Minus the squared distances to the means of the classes."""
    shots, queries = _sides(body, parameters, episode)
    members = jax.nn.one_hot(episode[1], method.ways)
    means = (members.T @ shots) / members.sum(0)[:, None]
    return cross_entropy(-jnp.square(queries[:, None] - means).sum(-1), episode[3])


def r2d2(method: Method, body: Callable[..., Any], parameters: Parameters, episode: Episode) -> Any:
    """Ridge regression in closed form; in float32, where metaray's is solved in float64."""
    shots, queries = (
        jnp.concatenate([side, jnp.ones_like(side[:, :1])], axis=1) for side in _sides(body, parameters, episode)
    )
    kernel = shots @ shots.T + jnp.exp(parameters[LOG_REGULARIZER]) * jnp.eye(len(shots))
    weights = shots.T @ jnp.linalg.solve(kernel, jax.nn.one_hot(episode[1], method.ways))
    return cross_entropy(parameters[SCALE] * (queries @ weights), episode[3])


LOSSES: dict[str, Callable[..., Any]] = {
    "maml": maml,
    "fomaml": maml,
    "anil": anil,
    "protonet": protonet,
    "r2d2": r2d2,
}
