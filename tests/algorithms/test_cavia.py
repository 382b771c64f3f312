"""CAVIA: where the context enters, and that nothing else adapts."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from metaray.algorithms import CAVIA
from metaray.algorithms.algorithm import start
from metaray.algorithms.cavia import CONTEXT, MODULATION
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.errors import InputError
from metaray.models import MLP, Conv4, Model
from metaray.models.batch_norm import EpisodicBatchNorm
from metaray.tasks import Regression

MakeEpisode = Callable[..., TensorEpisode]


def bench(algorithm: CAVIA, model: Model, task_shape: TaskShape) -> tuple[Tensors, Context]:
    network, meta = start(algorithm, model, task_shape, seed=1)
    context = Context(network=network.double(), ways=task_shape.ways, training=True, task=task_shape.task)
    return {name: tensor.double().requires_grad_() for name, tensor in meta.items()}, context


def test_at_the_first_linear_layer_it_is_an_input(make_episode: MakeEpisode) -> None:
    """By hand: a network whose input is x and phi side by side (section 4.2)."""
    algorithm = CAVIA(context_size=3, inner_lr=0.7, inner_steps=2)
    meta, context = bench(algorithm, MLP(hidden=(6,), batch_norm=False), TaskShape((2,), 1, Regression()))
    x, y = torch.randn(5, 2, dtype=torch.float64), torch.randn(5, 1, dtype=torch.float64)
    first = torch.cat([meta["body.1.weight"], meta[MODULATION + "body.1:shift"]], dim=1)

    def output(phi: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([x, phi.expand(5, 3)], dim=1)
        hidden = torch.relu(joined @ first.T + meta["body.1.bias"])
        return hidden @ meta["head.weight"].T + meta["head.bias"]

    phi = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    for _ in range(2):
        (gradient,) = torch.autograd.grad((output(phi) - y).square().mean(), phi, create_graph=True)
        phi = phi - 0.7 * gradient
    adapted = algorithm.adapt(meta, Examples(x, y), context)
    assert adapted.keys() == {CONTEXT}
    torch.testing.assert_close(adapted[CONTEXT], phi)
    torch.testing.assert_close(algorithm.predict(meta, adapted, x, context), output(phi))


@pytest.mark.parametrize("downsample", ["stride", "max_pool"])
def test_at_convolutions_it_scales_and_shifts_the_third_after_its_batch_norm(downsample: str) -> None:
    algorithm = CAVIA(context_size=4)
    meta, context = bench(algorithm, Conv4(channels=5, downsample=downsample), TaskShape((1, 16, 16), 3))
    phi = torch.randn(4, dtype=torch.float64)
    seen = []
    third = next(m for name, m in context.network.named_modules() if name.endswith("2.norm"))
    later = next(m for name, m in context.network.named_modules() if name.endswith("3.conv"))
    third.register_forward_hook(lambda module, inputs, output: seen.append(output))
    handle = later.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = torch.randn(6, 1, 16, 16, dtype=torch.float64)
    algorithm.predict(meta, {CONTEXT: phi}, x, context)
    handle.remove()
    scale, shift = (meta[f"{MODULATION}body.2.norm:{part}"] @ phi for part in ("scale", "shift"))
    modulated = torch.relu(seen[0] * (1 + scale)[:, None, None] + shift[:, None, None])
    expected = modulated if downsample == "stride" else nn.functional.max_pool2d(modulated, 2)
    torch.testing.assert_close(seen[1], expected)


@pytest.mark.parametrize(
    ("model", "features", "chosen"),
    [(MLP(hidden=(6,)), (1, 2, 2), 1.0), (Conv4(channels=3, downsample="stride"), (1, 16, 16), 10.0)],
)
def test_the_step_is_larger_where_phi_scales(model: Model, features: tuple[int, int, int], chosen: float) -> None:
    steps = []
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(6, *features, dtype=torch.float64, generator=generator), torch.arange(6) % 3
    for inner_lr in (None, chosen, 1.0, 10.0):
        algorithm = CAVIA(context_size=4, inner_lr=inner_lr, inner_steps=1, batch_norm="transductive")
        meta, context = bench(algorithm, model, TaskShape(features, 3))
        steps.append(algorithm.adapt(meta, Examples(x, y), context)[CONTEXT].detach())
    own, expected, *both = steps
    assert torch.equal(own, expected) and own.norm() > 0
    torch.testing.assert_close(both[1], 10 * both[0])


def test_hooks_are_gone_afterwards(make_episode: MakeEpisode) -> None:
    algorithm = CAVIA(context_size=4)
    meta, context = bench(algorithm, MLP(hidden=(6,)), TaskShape((1, 2, 2), 3))
    algorithm.loss(meta, make_episode(), context)
    assert not any(m._forward_hooks for m in context.network.modules())


def test_a_zero_context_changes_nothing(make_episode: MakeEpisode) -> None:
    algorithm = CAVIA(context_size=4, batch_norm="transductive")
    meta, context = bench(algorithm, MLP(hidden=(6,)), TaskShape((1, 2, 2), 3))
    episode = make_episode()
    adapted = algorithm.adapt(meta, episode.support, replace(context, inner_steps=0))
    theta = {name: tensor for name, tensor in meta.items() if not name.startswith(MODULATION)}
    expected = context.forward(theta, episode.query.x)
    assert torch.equal(algorithm.predict(meta, adapted, episode.query.x, context), expected)


def test_a_named_layer() -> None:
    _, meta = start(CAVIA(layer="head", context_size=4), MLP(hidden=(6,)), TaskShape((2,), 3), seed=0)
    assert [name for name in meta if name.startswith(MODULATION)] == [MODULATION + "head:shift"]
    assert meta[MODULATION + "head:shift"].shape == (3, 4)
    with pytest.raises(InputError, match=r"cavia: layer 'neck' is no convolution .* There are: body\.1, head"):
        start(CAVIA(layer="neck"), MLP(hidden=(6,)), TaskShape((2,), 3), seed=0)


def test_a_network_without_layers() -> None:
    with pytest.raises(InputError, match="no convolution or linear layer"):
        CAVIA().init(nn.Identity(), TaskShape((2,), 3))


class LayersThenNorms(nn.Module):
    """Registers its modules in another order than it calls them in."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
        self.bn1, self.bn2, self.bn3 = (EpisodicBatchNorm(4) for _ in range(3))
        self.out = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = norm(conv(x)).relu()
        found: torch.Tensor = self.out(x.mean(dim=(2, 3)))
        return found


@pytest.mark.parametrize(("layer", "entrance"), [(None, "bn3"), ("conv1", "bn1"), ("out", "out")])
def test_the_batch_norm_is_the_one_that_the_layer_feeds(layer: str | None, entrance: str) -> None:
    algorithm, network = CAVIA(layer=layer, context_size=4), LayersThenNorms()
    meta = algorithm.init(network, TaskShape((1, 9, 9), 3))
    names = {name.removeprefix(MODULATION).rpartition(":")[0] for name in meta if name.startswith(MODULATION)}
    assert names == {entrance}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
