"""higher (Grefenstette et al., arXiv:1910.01727): a patched copy of a module, and an optimiser to differentiate."""

from collections.abc import Callable

import higher
import torch
from torch import Tensor, nn

from jobs.benchmarks.peers.learner import (
    Backward,
    Conv4,
    Episode,
    Refused,
    TorchLearner,
    by_backward,
    by_gradient,
    cross_entropy,
)
from jobs.benchmarks.peers.wire import Arrays, Method

PACKAGES = ("higher", "torch")


def build(method: Method, arrays: Arrays) -> TorchLearner:
    """What computes it.

    Raises:
        Refused: for what has no inner loop.
    """
    if method.kind not in MAKERS:
        raise Refused(f"higher is of inner loops, and {method.kind} has none")
    return TorchLearner(MAKERS[method.kind], method, arrays)


def adapted(module: nn.Module, x: Tensor, y: Tensor, method: Method, *, track: bool = True) -> nn.Module:
    """The patched module after its inner steps; `track` keeps what leads back to where it started."""
    optimizer = torch.optim.SGD(module.parameters(), lr=method.rate)
    loop = higher.innerloop_ctx(module, optimizer, copy_initial_weights=False, track_higher_grads=track)
    with loop as (fast, stepper):
        for _ in range(method.steps):
            stepper.step(cross_entropy(fast(x), y))
    found: nn.Module = fast
    return found


def maml(network: Conv4, method: Method) -> Backward:
    """Second order."""

    def loss(episode: Episode) -> Tensor:
        fast = adapted(network, episode.support_x, episode.support_y, method)
        return cross_entropy(fast(episode.query_x), episode.query_y)

    return by_backward(loss)


def fomaml(network: Conv4, method: Method) -> Backward:
    """Without tracking each copy is a leaf: the gradient is taken where the steps led."""

    def loss(episode: Episode) -> tuple[Tensor, list[Tensor]]:
        fast = adapted(network, episode.support_x, episode.support_y, method, track=False)
        return cross_entropy(fast(episode.query_x), episode.query_y), list(fast.parameters())

    return by_gradient(loss, network)


def anil(network: Conv4, method: Method) -> Backward:
    """The head alone is patched; the features are computed once."""

    def loss(episode: Episode) -> Tensor:
        head = adapted(network.head, network.body(episode.support_x), episode.support_y, method)
        return cross_entropy(head(network.body(episode.query_x)), episode.query_y)

    return by_backward(loss)


MAKERS: dict[str, Callable[[Conv4, Method], Backward]] = {"maml": maml, "fomaml": fomaml, "anil": anil}
