"""Batch norm without running statistics."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from metaray.errors import InputError
from metaray.models.batch_norm import EpisodicBatchNorm, FrozenBatchNorm, given, recording
from metaray.models.written_out import written_out

SHAPES = [(5, 3), (4, 3, 6), (4, 3, 5, 2)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def batch(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3 + 1


def layer_of(channels: int = 3, **options: bool) -> EpisodicBatchNorm:
    layer = EpisodicBatchNorm(channels, **options).double()
    if layer.weight is not None and layer.bias is not None:
        with torch.no_grad():
            layer.weight.copy_(torch.linspace(0.5, 2, channels))
            layer.bias.copy_(torch.linspace(-1, 1, channels))
    return layer


@every_shape
@pytest.mark.parametrize("affine", [True, False])
def test_equals_torch(shape: tuple[int, ...], affine: bool) -> None:
    x, layer = batch(shape), layer_of(affine=affine)
    expected = nn.functional.batch_norm(x, None, None, layer.weight, layer.bias, training=True)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)
    with written_out():
        torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


@every_shape
def test_recorded_statistics_are_means_and_biased_variances(shape: tuple[int, ...]) -> None:
    x, network = batch(shape), nn.Sequential(layer_of())
    with recording(network) as statistics:
        network(x)
    rows = x.transpose(0, 1).reshape(3, -1)
    assert statistics.keys() == {"0.mean", "0.variance"}
    torch.testing.assert_close(statistics["0.mean"], rows.mean(1))
    torch.testing.assert_close(statistics["0.variance"], rows.var(1, correction=0))


@every_shape
def test_a_batch_given_its_own_statistics_comes_out_the_same(shape: tuple[int, ...]) -> None:
    x, network = batch(shape), nn.Sequential(layer_of(), nn.Tanh(), layer_of())
    with recording(network) as statistics:
        expected = network(x)
    with given(network, statistics):
        torch.testing.assert_close(network(x), expected, rtol=1e-12, atol=1e-12)


def test_given_statistics_make_examples_independent() -> None:
    network, x = nn.Sequential(layer_of()), batch((6, 3), seed=1)
    with recording(network) as statistics:
        network(batch((5, 3)))
    with given(network, statistics):
        torch.testing.assert_close(network(x[:1]), network(x)[:1])
        assert not torch.allclose(network(x), nn.functional.batch_norm(x, None, None, training=True))


def test_gradients_flow_into_given_statistics() -> None:
    layer, x = layer_of(), batch((5, 3))
    mean = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    variance = torch.ones(3, dtype=torch.float64, requires_grad=True)

    def output(mean: Tensor, variance: Tensor) -> Tensor:
        with given(nn.Sequential(layer), {"0.mean": mean, "0.variance": variance}):
            result: Tensor = layer(x)
        return result

    assert torch.autograd.gradcheck(output, (mean, variance))
    assert torch.autograd.gradgradcheck(output, (mean, variance))


@pytest.mark.parametrize("fused", [True, False])
def test_gradients_reach_the_recorded_batch(fused: bool) -> None:
    layer, x = layer_of(), batch((5, 3)).requires_grad_()
    with recording(nn.Sequential(layer)) as statistics, nullcontext() if fused else written_out():
        layer(x)
    (gradient,) = torch.autograd.grad(statistics["0.variance"].sum(), x)
    torch.testing.assert_close(gradient, 2 * (x - x.mean(0)) / 5)


def test_second_derivatives_under_vmap_need_the_written_out_form() -> None:
    # The reason for `written_out`: the day the last line fails, torch has mended its batching rule, and it can go.
    layer, x = layer_of(), batch((2, 5, 3))
    direction = torch.linspace(-1, 1, 3, dtype=torch.float64)

    def slope_of_scale(shift: Tensor, rows: Tensor) -> Tensor:
        def inner(scale: Tensor) -> Tensor:
            output: Tensor = functional_call(layer, {"weight": scale}, (torch.sin(rows * shift),))
            return output.pow(3).sum()

        slopes: Tensor = torch.func.grad(inner)(torch.ones(3, dtype=torch.float64))
        return slopes @ direction

    def mixed(*, batched: bool) -> Tensor:
        shift = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        slopes = (
            torch.vmap(slope_of_scale, in_dims=(None, 0))(shift, x)
            if batched
            else torch.stack([slope_of_scale(shift, rows) for rows in x])
        )
        return torch.autograd.grad(slopes.sum(), shift)[0]

    step = 1e-6
    ahead, behind = (
        sum(slope_of_scale(torch.tensor(0.7 + sign * step, dtype=torch.float64), rows) for rows in x)
        for sign in (1, -1)
    )
    expected = torch.as_tensor((ahead - behind) / (2 * step))
    torch.testing.assert_close(mixed(batched=False), expected, rtol=1e-6, atol=0)
    with written_out():
        torch.testing.assert_close(mixed(batched=True), expected, rtol=1e-6, atol=0)
    assert not torch.allclose(mixed(batched=True), expected, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_records_in_float32(dtype: torch.dtype) -> None:
    network = nn.Sequential(EpisodicBatchNorm(3, affine=False))
    x = batch((64, 3)).to(dtype)
    with recording(network) as statistics:
        own = network(x)
    assert statistics["0.mean"].dtype == statistics["0.variance"].dtype == torch.float32
    with given(network, statistics):
        other = network(x)
    assert own.dtype == other.dtype == dtype
    torch.testing.assert_close(own.float(), other.float(), rtol=0.02, atol=0.02)


def test_a_single_value_a_channel_is_refused_with_a_way_out() -> None:
    layer = layer_of()
    for x in (batch((1, 3)), batch((1, 3, 1, 1))):
        with pytest.raises(InputError, match="at least two at once, or use batch_norm='inductive'"):
            layer(x)
    assert layer(batch((1, 3, 2, 1))).isfinite().all()
    with given(nn.Sequential(layer), {"0.mean": torch.zeros(3), "0.variance": torch.ones(3)}):
        assert layer(batch((1, 3))).isfinite().all()


def state(layer: EpisodicBatchNorm) -> tuple[object, object, bool]:
    return layer.statistics, layer.recorded, layer.record


def test_exceptions_inside_restore_the_layers() -> None:
    layer = layer_of()
    network = nn.Sequential(layer)
    blank = {"0.mean": torch.zeros(3), "0.variance": torch.ones(3)}
    for block in (recording(network), given(network, blank)):
        with pytest.raises(KeyError), block:
            network(batch((4, 3)))
            assert state(layer) != (None, None, False)
            raise KeyError
        assert state(layer) == (None, None, False)


def test_statistics_of_absent_layers_leave_the_rest_alone() -> None:
    network, x = nn.Sequential(layer_of()), batch((4, 3))
    with given(network, {"elsewhere.mean": torch.zeros(3), "elsewhere.variance": torch.ones(3)}):
        inside = network(x)
    assert torch.equal(inside, network(x))


def test_a_layer_that_did_not_run_records_nothing() -> None:
    network = nn.Sequential(layer_of())
    with recording(network) as statistics:
        pass
    assert statistics == {}


@pytest.mark.parametrize("training", [True, False])
def test_a_frozen_layer_has_the_statistics_it_was_stored_with(training: bool) -> None:
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(3).double()
    plain(batch((8, 3, 2, 2)))
    expected = plain.eval()(batch((4, 3, 2, 2), seed=1))
    plain.__class__ = FrozenBatchNorm  # type: ignore[assignment]  # as the conversion of a network does
    assert torch.equal(plain.train(training)(batch((4, 3, 2, 2), seed=1)), expected)
    with written_out():
        torch.testing.assert_close(plain(batch((4, 3, 2, 2), seed=1)), expected)
