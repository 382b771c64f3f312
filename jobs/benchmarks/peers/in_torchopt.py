"""TorchOpt (Ren et al., JMLR 2023): optimisers whose updates are differentiable functions of the gradient."""

from collections.abc import Callable
from typing import Any

import torch
import torchopt
from torch import Tensor, nn
from torch.func import functional_call

from jobs.benchmarks.peers.learner import Backward, Conv4, Episode, Refused, TorchLearner, by_backward, cross_entropy
from jobs.benchmarks.peers.wire import Arrays, Method

PACKAGES = ("torchopt", "torch")


def build(method: Method, arrays: Arrays) -> TorchLearner:
    """What computes it.

    Raises:
        Refused: for what has no inner loop.
    """
    if method.kind not in MAKERS:
        raise Refused(f"TorchOpt is of inner loops, and {method.kind} has none")
    return TorchLearner(MAKERS[method.kind], method, arrays)


def adapted(module: nn.Module, x: Tensor, y: Tensor, method: Method) -> Callable[[Tensor], Tensor]:
    """The module at its parameters after the inner steps."""
    theta: Any = dict(module.named_parameters())
    optimizer = torchopt.sgd(lr=method.rate)
    state = optimizer.init(theta)
    for _ in range(method.steps):
        loss = cross_entropy(functional_call(module, theta, (x,)), y)
        found = torch.autograd.grad(loss, list(theta.values()), create_graph=method.kind != "fomaml")
        updates, state = optimizer.update(dict(zip(theta, found, strict=True)), state, inplace=False)
        theta = torchopt.apply_updates(theta, updates, inplace=False)

    def call(inputs: Tensor) -> Tensor:
        output: Tensor = functional_call(module, theta, (inputs,))
        return output

    return call


def maml(network: Conv4, method: Method) -> Backward:
    """MAML and FOMAML."""

    def loss(episode: Episode) -> Tensor:
        fast = adapted(network, episode.support_x, episode.support_y, method)
        return cross_entropy(fast(episode.query_x), episode.query_y)

    return by_backward(loss)


def anil(network: Conv4, method: Method) -> Backward:
    """The head alone takes steps; the features are computed once."""

    def loss(episode: Episode) -> Tensor:
        head = adapted(network.head, network.body(episode.support_x), episode.support_y, method)
        return cross_entropy(head(network.body(episode.query_x)), episode.query_y)

    return by_backward(loss)


MAKERS: dict[str, Callable[[Conv4, Method], Backward]] = {"maml": maml, "fomaml": maml, "anil": anil}
