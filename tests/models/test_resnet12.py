"""The twelve-layer residual network."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from metaray.algorithms import MAML, ProtoNet
from metaray.algorithms.algorithm import Algorithm, start
from metaray.algorithms.context import Context
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import TensorEpisode
from metaray.errors import InputError
from metaray.models import MODELS, Model, ResNet12
from metaray.models.model import build_seeded
from metaray.models.resnet12 import DropBlock

MakeEpisode = Callable[..., TensorEpisode]

# Narrow enough for tests; as deep as the real one.
NARROW = (3, 4, 5, 6)


def narrow(**fields: object) -> ResNet12:
    return ResNet12.parse({"channels": NARROW, **fields}, where="model")


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_count_of_the_paper() -> None:
    # 12.4M: a block has 9 (ab + 2bb) + ab weights and 8b of four batch norms, from a channels to b.
    widths = ((3, 64), (64, 160), (160, 320), (320, 640))
    expected = sum(9 * (a * b + 2 * b * b) + a * b + 8 * b for a, b in widths)
    network = ResNet12().build((3, 84, 84), 5)
    assert count(network.body) == expected == 12_424_320  # type: ignore[arg-type]
    assert count(network) == expected + 640 * 25 * 5 + 5
    assert count(ResNet12(pool="mean").build((3, 84, 84), 5)) == expected + 640 * 5 + 5


@pytest.mark.parametrize(
    ("shape", "places"), [((1, 28, 28), 1), ((3, 32, 32), 4), ((3, 84, 84), 25), ((1, 16, 16), 1), ((2, 17, 50), 3)]
)
def test_embeddings(shape: tuple[int, ...], places: int) -> None:
    x = torch.randn(2, *shape)
    with torch.no_grad():
        assert narrow().build(shape, None)(x).shape == (2, 6 * places)
        assert narrow(pool="mean").build(shape, None)(x).shape == (2, 6)
        assert narrow().build(shape, 7)(x).shape == (2, 7)


def test_names_do_not_depend_on_dropping() -> None:
    names = [list(dict(narrow(drop_rate=r).build((1, 16, 16), 2).named_parameters())) for r in (0.0, 0.1)]
    assert names[0] == names[1]
    assert {name.split(".")[0] for name in names[0]} == {"body", "head"}
    assert {name.split(".")[1] for name in names[0] if name.startswith("body")} == {"0", "1", "2", "3"}


def test_convolutions_start_as_the_authors_have_them() -> None:
    network = build_seeded(ResNet12(), (3, 32, 32), 5, seed=0)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 10_000:
            fan_out = layer.out_channels * layer.kernel_size[0] ** 2
            assert layer.bias is None and abs(float(layer.weight.detach().std()) / (2 / fan_out) ** 0.5 - 1) < 0.05


def test_a_block_is_what_its_docstring_says() -> None:
    network: Any = narrow().build((2, 16, 16), None).double()
    block = network.body[0]
    x = torch.randn(3, 2, 16, 16, dtype=torch.float64)

    def norm(z: torch.Tensor) -> torch.Tensor:
        mean, variance = z.mean(dim=(0, 2, 3), keepdim=True), z.var(dim=(0, 2, 3), correction=0, keepdim=True)
        return (z - mean) / (variance + 1e-5).sqrt()

    a = x
    for conv in (block.conv1, block.conv2):
        z = norm(nn.functional.conv2d(a, conv.weight, padding=1))
        a = torch.maximum(z, 0.1 * z)
    z = norm(nn.functional.conv2d(a, block.conv3.weight, padding=1)) + norm(block.shortcut(x))
    expected = torch.maximum(z, 0.1 * z).unfold(2, 2, 2).unfold(3, 2, 2).amax(dim=(4, 5))
    torch.testing.assert_close(block(x), expected)


def bench(algorithm: Algorithm, model: Model, dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], Context]:
    network, meta = start(algorithm, model, TaskShape((1, 16, 16), 3, classes=3), seed=1)
    network.to(dtype)
    return {k: t.to(dtype).requires_grad_() for k, t in meta.items()}, Context(network=network, ways=3, training=True)


@pytest.mark.parametrize("protocol", ["transductive", "inductive"])
@pytest.mark.parametrize("algorithm", [MAML(inner_lr=0.1, inner_steps=2), ProtoNet()], ids=lambda a: a.kind)
def test_a_chunk_is_the_sum_of_its_episodes(algorithm: Algorithm, protocol: str, make_episode: MakeEpisode) -> None:
    algorithm = type(algorithm).parse({**algorithm.model_dump(), "batch_norm": protocol}, where="algorithm")
    meta, context = bench(algorithm, narrow(), torch.float64)
    chunk = make_episode(feature=(1, 16, 16), size=2)
    together = algorithm.meta_gradient(meta, chunk, context.with_batched(True))
    alone = [
        algorithm.meta_gradient(meta, TensorEpisode(*(_at(part, i) for part in chunk)), context)  # type: ignore[arg-type]
        for i in range(2)
    ]
    for name, gradient in together.gradient.items():
        torch.testing.assert_close(gradient, sum(one.gradient[name] for one in alone), rtol=1e-6, atol=1e-9)
    assert any(bool(gradient.abs().max() > 1e-6) for gradient in together.gradient.values())


def _at(part: object, i: int) -> object:
    return type(part)(*(t[i] for t in part)) if isinstance(part, tuple) else part[i]  # type: ignore[index]


@pytest.mark.parametrize("batched", [False, True])
def test_dropping_depends_on_the_generator_and_on_training_alone(batched: bool, make_episode: MakeEpisode) -> None:
    algorithm = MAML(inner_lr=0.1)
    meta, context = bench(algorithm, narrow(drop_rate=0.2, block_size=2), torch.float32)
    context = context.with_batched(batched)
    chunk = make_episode(feature=(1, 16, 16), dtype=torch.float32, size=2 if batched else None)

    def gradient(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        found = algorithm.meta_gradient(meta, chunk, context).gradient
        return torch.cat([g.flatten() for g in found.values()])

    assert torch.equal(gradient(0), gradient(0)) and gradient(0).isfinite().all()
    assert not torch.equal(gradient(0), gradient(1))
    network = context.network.eval()
    x = torch.randn(4, 1, 16, 16)
    before = torch.random.get_rng_state()
    assert torch.equal(network(x), network(x)) and torch.equal(before, torch.random.get_rng_state())


def test_episodes_of_a_chunk_drop_differently() -> None:
    layer = DropBlock(0.3, 2)
    dropped = torch.vmap(layer, randomness="different")(torch.ones(2, 3, 4, 6, 6)) == 0
    assert not torch.equal(dropped[0], dropped[1])


@pytest.mark.parametrize(("side", "block"), [(10, 5), (7, 3), (6, 2), (3, 5), (1, 5)])
def test_dropped_squares(side: int, block: int) -> None:
    torch.manual_seed(0)
    y = DropBlock(0.1, block)(torch.ones(200, 16, side, side))
    dropped = y == 0
    assert abs(float(y.mean()) - 1) < 1e-5
    # Squares overlap, so a little less than the rate.
    assert 0.07 < float(dropped.float().mean()) < 0.105
    size = min(block, side)
    covered = -nn.functional.max_pool2d(-dropped.float(), size, stride=1)  # squares that are dropped whole
    margin = size - 1
    grown = nn.functional.max_pool2d(nn.functional.pad(covered, (margin,) * 4), size, stride=1)
    assert torch.equal(grown.bool(), dropped)


def test_all_dropped_is_zero_and_not_nan() -> None:
    torch.manual_seed(0)
    assert torch.equal(DropBlock(0.999999, 1)(torch.ones(1, 1, 1, 1)), torch.zeros(1, 1, 1, 1))


@pytest.mark.parametrize("batched", [False, True])
def test_bfloat16_channels_last(batched: bool, make_episode: MakeEpisode) -> None:
    algorithm = MAML(inner_lr=0.1)
    meta, context = bench(algorithm, narrow(drop_rate=0.1), torch.float32)
    context = Context(context.network, 3, training=True, precision="bfloat16", channels_last=True, batched=batched)
    chunk = make_episode(feature=(1, 16, 16), dtype=torch.float32, size=2 if batched else None)
    found = algorithm.meta_gradient(meta, chunk, context)
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in found.gradient.values())


def test_inputs_it_cannot_take() -> None:
    with pytest.raises(InputError, match=r"resnet12 takes images .*not features of shape \(784,\)"):
        ResNet12().build((784,), 5)
    with pytest.raises(InputError, match="15x40 is smaller than 16x16"):
        ResNet12().build((1, 15, 40), 5)
    with pytest.raises(InputError, match=r"channels\.1: .*greater than 0 \(got 0\)"):
        narrow(channels=(3, 0, 5, 6))
    with pytest.raises(InputError, match="channels"):
        narrow(channels=(3, 4))
    with pytest.raises(InputError, match=r"drop_rate: .*less than 1"):
        narrow(drop_rate=1.0)
    assert MODELS["resnet12"] is ResNet12
