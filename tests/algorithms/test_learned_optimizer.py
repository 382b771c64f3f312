"""The learned optimiser against torch's own LSTM; its meta-gradient in second order against difference quotients."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from metaray.algorithms import LearnedOptimizer
from metaray.algorithms.algorithm import start
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.prefixes import without
from metaray.algorithms.learned_optimizer import lstm_cell, preprocessed
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import TensorEpisode
from metaray.models import MLP

MakeEpisode = Callable[..., TensorEpisode]

SMALL = LearnedOptimizer(hidden=3, inner_steps=3, scale=1, batch_norm="transductive")
PROBLEM = TaskShape((1, 2, 2), 3, classes=3)


def bench(
    algorithm: LearnedOptimizer = SMALL, *, training: bool = True, batch_norm: bool = True
) -> tuple[Context, Tensors]:
    network, meta = start(algorithm, MLP(hidden=(5,), batch_norm=batch_norm), PROBLEM, seed=1)
    for name, child in network.get_submodule("body").named_children():
        if isinstance(child, nn.ReLU):  # a difference quotient across a kink is no derivative
            network.get_submodule("body").register_module(name, nn.Tanh())
    context = Context(network=network.double(), ways=3, training=training)
    return context, {name: value.double().requires_grad_() for name, value in meta.items()}


def cell_of(weight: Tensor, bias: Tensor, inputs: int) -> nn.LSTMCell:
    cell = nn.LSTMCell(inputs, weight.shape[0] // 4).double()
    split = {"weight_ih": weight[:, :inputs], "weight_hh": weight[:, inputs:]}
    cell.load_state_dict({**split, "bias_ih": bias, "bias_hh": torch.zeros_like(bias)})
    return cell


def test_the_cell_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias, x, h, c = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((12, 5), (12,), (4, 2), (4, 3), (4, 3))
    )
    found = lstm_cell(weight, bias, x, h, c)
    for one, other in zip(found, cell_of(weight, bias, 2)(x, (h, c)), strict=True):
        torch.testing.assert_close(one, other.detach())


def test_gradients_as_the_optimiser_sees_them() -> None:
    e = math.e
    seen = preprocessed(torch.tensor([e**-3, -(e**-5), 1.0, 0.0, e**-12, -(e**-11)], dtype=torch.float64), 10)
    expected = [[-0.3, 1], [-0.5, -1], [0, 1], [-1, 0], [-1, e**-2], [-1, -(e**-1)]]
    torch.testing.assert_close(seen, torch.tensor(expected, dtype=torch.float64))


def test_its_derivative_is_finite_everywhere() -> None:
    gradient = torch.tensor([0.0, 1e-30, -1e-3, 2.0], dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(preprocessed(gradient, 10).sum(), gradient)[0]
    expected = torch.tensor([math.exp(10), math.exp(10), -1e3 / 10, 0.5 / 10], dtype=torch.float64)
    torch.testing.assert_close(slope, expected)


def test_two_steps_with_torch_cells(make_episode: MakeEpisode) -> None:
    context, meta = bench()
    episode = make_episode()
    adapted = LearnedOptimizer(hidden=3, inner_steps=2, scale=0.7, batch_norm="transductive").adapt(
        meta, episode.support, context
    )
    phi = {name.removeprefix("optimizer:"): value for name, value in meta.items() if name.startswith("optimizer:")}
    cells = [cell_of(phi["0.weight"], phi["0.bias"], 2), cell_of(phi["1.weight"], phi["1.bias"], 3)]
    for name, value in without(meta, "optimizer:").items():
        expected = value.detach().clone()
        states: list[tuple[Tensor, Tensor] | None] = [None, None]
        theta = {n: v.detach() for n, v in without(meta, "optimizer:").items()}
        for step in range(2):
            if step:
                theta = {n: v.detach() for n, v in one_step(meta, episode, context).items()}
            at = {n: v.clone().requires_grad_() for n, v in theta.items()}
            logits = torch.func.functional_call(context.network, at, (episode.support.x,))
            nn.functional.cross_entropy(logits, episode.support.y).backward()
            gradient = at[name].grad
            assert gradient is not None
            signal = preprocessed(gradient.flatten(), 10)
            for i, cell in enumerate(cells):
                states[i] = cell(signal, states[i])
                signal = states[i][0]  # type: ignore[index]
            expected += 0.7 * (signal @ phi["output.weight"].T + phi["output.bias"]).detach().view_as(expected)
        torch.testing.assert_close(adapted[name].detach(), expected)


def one_step(meta: Tensors, episode: TensorEpisode, context: Context) -> Tensors:
    return LearnedOptimizer(hidden=3, inner_steps=1, scale=0.7, batch_norm="transductive").adapt(
        meta, episode.support, context
    )


@pytest.mark.parametrize("training", [True, False])
def test_no_inner_steps_change_nothing(training: bool, make_episode: MakeEpisode) -> None:
    context, meta = bench(training=training)
    adapted = SMALL.adapt(meta, make_episode().support, replace(context, inner_steps=0))
    theta = without(meta, "optimizer:")
    assert adapted.keys() == theta.keys() and all(torch.equal(adapted[name], theta[name]) for name in theta)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_meta_gradient_in_second_order(batched: bool, batch_norm: bool, make_episode: MakeEpisode) -> None:
    algorithm = LearnedOptimizer(hidden=3, inner_steps=3, scale=1, second_order=True)
    context, meta = bench(algorithm, batch_norm=batch_norm)
    context, episode = replace(context, batched=batched), make_episode(size=2 if batched else None)
    gradient = algorithm.meta_gradient(meta, episode, context).gradient
    generator = torch.Generator().manual_seed(0)
    for name, value in meta.items():
        direction = torch.randn(value.shape, generator=generator, dtype=value.dtype)
        ahead, behind = (
            float(
                algorithm.outcomes({**meta, name: value + sign * 1e-6 * direction}, episode, context)
                .loss.detach()
                .sum()
            )
            for sign in (1, -1)
        )
        slope = float((gradient[name] * direction).sum())
        assert (ahead - behind) / 2e-6 == pytest.approx(slope, rel=1e-4, abs=1e-7), name


def test_in_first_order_gradients_are_constants(make_episode: MakeEpisode) -> None:
    context, meta = bench()
    episode = make_episode()
    found = SMALL.meta_gradient(meta, episode, context)
    theta = {n: t.detach().requires_grad_() for n, t in SMALL.adapt(meta, episode.support, context).items()}
    loss = nn.functional.cross_entropy(context.forward(theta, episode.query.x), episode.query.y)
    # theta_T = theta_0 + sum of outputs, none of which depends on theta_0: the gradient is that at theta_T.
    for name, expected in zip(theta, torch.autograd.grad(loss, list(theta.values())), strict=True):
        torch.testing.assert_close(found.gradient[name], expected)
    second = LearnedOptimizer(**{**SMALL.model_dump(), "second_order": True})
    other = second.meta_gradient(meta, episode, context)
    torch.testing.assert_close(found.outcome.loss, other.outcome.loss)
    assert not torch.allclose(found.gradient["head.weight"], other.gradient["head.weight"], rtol=1e-3)


def test_the_untrained_optimiser_makes_small_steps(make_episode: MakeEpisode) -> None:
    algorithm = LearnedOptimizer(batch_norm="transductive")
    context, meta = bench(algorithm, training=False)
    adapted = algorithm.adapt(meta, make_episode().support, context)
    moves = [float((adapted[name] - meta[name]).detach().abs().max()) for name in adapted]
    assert 0 < max(moves) < 0.02 * 5
