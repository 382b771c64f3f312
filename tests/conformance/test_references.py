"""Meta-gradients against other libraries, where they are installed; metaray itself needs none of them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metaray.algorithms import ALGORITHMS
from metaray.algorithms.context import Tensors
from metaray.episodes.tensors import TensorEpisode
from metaray.models import MLP
from tests.conformance.bench import Bench, Trial

pytestmark = pytest.mark.slow

RATE = 0.3

Reference = Callable[[nn.Module, Callable[..., Tensor], TensorEpisode, int, bool], list[Tensor]]


def higher_gradient(
    network: nn.Module, loss: Callable[..., Tensor], episode: TensorEpisode, steps: int, second_order: bool
) -> list[Tensor]:
    """`higher`: a patched copy of the module, an optimiser that can be differentiated."""
    higher: Any = pytest.importorskip("higher")
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
    loop = higher.innerloop_ctx(network, optimizer, copy_initial_weights=False, track_higher_grads=second_order)
    with loop as (functional, stepper):
        for _ in range(steps):
            stepper.step(loss(functional(episode.support.x), episode.support.y))
        outcome = loss(functional(episode.query.x), episode.query.y)
        # Without tracking each copy is a leaf: FOMAML is the gradient where the steps led.
        at = list(network.parameters() if second_order else functional.parameters())
        return list(torch.autograd.grad(outcome, at))


def torchopt_gradient(
    network: nn.Module, loss: Callable[..., Tensor], episode: TensorEpisode, steps: int, second_order: bool
) -> list[Tensor]:
    """TorchOpt: updates that are differentiable functions of the gradient."""
    torchopt: Any = pytest.importorskip("torchopt")
    theta = {name: parameter.detach().requires_grad_() for name, parameter in network.named_parameters()}
    start, optimizer = theta, torchopt.sgd(lr=RATE)
    state = optimizer.init(theta)

    def call(at: Tensors, x: Tensor) -> Any:
        return torch.func.functional_call(network, at, (x,))

    for _ in range(steps):
        objective = loss(call(theta, episode.support.x), episode.support.y)
        found = torch.autograd.grad(objective, list(theta.values()), create_graph=second_order)
        updates, state = optimizer.update(dict(zip(theta, found, strict=True)), state, inplace=False)
        theta = torchopt.apply_updates(theta, updates, inplace=False)
    outcome = loss(call(theta, episode.query.x), episode.query.y)
    return list(torch.autograd.grad(outcome, list(start.values())))


@pytest.mark.parametrize("reference", [higher_gradient, torchopt_gradient])
@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("kind", [kind for kind in ("maml", "fomaml") if kind in ALGORITHMS])
def test_meta_gradients_are_those_of_other_libraries(kind: str, steps: int, task: str, reference: Reference) -> None:
    settings = {"inner_lr": RATE, "inner_steps": steps}
    bench = Bench(Trial(kind, task, "transductive"), model=MLP(hidden=(6, 5)), settings=settings)
    episode, network = bench.episode(shots=3, queries=3), bench.context.network
    own: Tensors = bench.algorithm.meta_gradient(bench.meta, episode, bench.context).gradient
    theirs = reference(network, bench.context.loss, episode, steps, kind == "maml")
    for (name, tensor), other in zip(own.items(), theirs, strict=True):
        torch.testing.assert_close(tensor, other, rtol=1e-10, atol=1e-10, msg=partial("{}: {}".format, name))
