"""Norms in plain arithmetic: whoever calls them, chunks have the derivatives of single episodes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaray.algorithms import MAML
from metaray.algorithms.context import Context
from metaray.models.conversion import convert
from metaray.models.written_out import is_written_out, written_out
from metaray.training.checks.double_backward import relative_difference
from tests.conformance.bench import episode_of

WIDTH = 12


class Doubled(nn.LayerNorm):
    """A layer norm of a user's own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Called(nn.Module):
    """A norm that is called as a function, with weights."""

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor], size: int = WIDTH) -> None:
        super().__init__()
        self.function = function
        self.weight, self.bias = nn.Parameter(torch.linspace(0.5, 2, size)), nn.Parameter(torch.linspace(-1, 1, size))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.weight, self.bias)


class OnMaps(nn.Module):
    """A norm of feature maps."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.norm(x.view(-1, 3, 2, 2))
        return found.flatten(1)


def running(x: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return torch.linspace(-1, 1, WIDTH, dtype=dtype), torch.linspace(1, 2, WIDTH, dtype=dtype)


NORMS: dict[str, Callable[[], nn.Module]] = {
    "nn.LayerNorm": lambda: nn.LayerNorm(WIDTH),
    "subclass of nn.LayerNorm": lambda: Doubled(WIDTH),
    "nn.LayerNorm without bias": lambda: nn.LayerNorm(WIDTH, bias=False),
    "nn.BatchNorm1d": lambda: nn.BatchNorm1d(WIDTH),
    "nn.InstanceNorm2d": lambda: OnMaps(nn.InstanceNorm2d(3)),
    "nn.InstanceNorm2d, affine": lambda: OnMaps(nn.InstanceNorm2d(3, affine=True)),
    "nn.GroupNorm": lambda: nn.GroupNorm(3, WIDTH),
    "nn.RMSNorm": lambda: nn.RMSNorm(WIDTH),
    "nn.TransformerEncoderLayer's norms": lambda: nn.Sequential(nn.LayerNorm(WIDTH), nn.GELU(), nn.LayerNorm(WIDTH)),
    "F.layer_norm": lambda: Called(lambda x, w, b: F.layer_norm(x, (WIDTH,), w, b)),
    "F.layer_norm, by keyword": lambda: Called(
        lambda x, w, b: F.layer_norm(input=x, normalized_shape=(WIDTH,), weight=w)
    ),
    "F.batch_norm, training": lambda: Called(lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True)),
    "F.batch_norm, given": lambda: Called(lambda x, w, b: F.batch_norm(x, *running(x), weight=w, bias=b)),
    "F.batch_norm, scale alone": lambda: Called(lambda x, w, b: F.batch_norm(x, None, None, w, training=True)),
    "F.instance_norm": lambda: OnMaps(Called(lambda x, w, b: F.instance_norm(x, weight=w, bias=b), 3)),
    "torch.layer_norm": lambda: Called(lambda x, w, b: torch.layer_norm(x, (WIDTH,), w, b)),
    "torch.batch_norm": lambda: Called(lambda x, w, b: torch.batch_norm(x, w, b, None, None, True, 0.0, 1e-5, False)),
    "torch.instance_norm": lambda: OnMaps(
        Called(lambda x, w, b: torch.instance_norm(x, w, b, None, None, True, 0.0, 1e-5, False), 3)
    ),
    "torch.native_layer_norm": lambda: Called(lambda x, w, b: torch.native_layer_norm(x, (WIDTH,), w, b, 1e-5)[0]),
    "torch.native_batch_norm": lambda: Called(
        lambda x, w, b: torch.native_batch_norm(x, w, b, None, None, True, 0.0, 1e-5)[0]
    ),
}
every_norm = pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)


def network_of(norm: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return convert(nn.Sequential(nn.Flatten(), nn.Linear(4, WIDTH), norm(), nn.Linear(WIDTH, 3)))


@every_norm
def test_a_chunk_has_the_meta_gradient_of_its_episodes(
    norm: Callable[[], nn.Module], make_episode: Callable[..., object]
) -> None:
    """Off by 3 to 17 % before, with these inner steps, but for group norm and RMS norm."""
    network = network_of(norm).double()
    meta = {name: parameter.detach().requires_grad_() for name, parameter in network.named_parameters()}
    chunk, algorithm = make_episode(size=2), MAML(inner_lr=1.0, inner_steps=5)
    context = Context(network=network, ways=3, training=True)
    together = algorithm.meta_gradient(meta, chunk, context.with_batched(True)).gradient  # type: ignore[arg-type]
    one, other = (algorithm.meta_gradient(meta, episode_of(chunk, i), context).gradient for i in range(2))  # type: ignore[arg-type]
    assert relative_difference(together, {name: one[name] + other[name] for name in meta}) < 1e-10


@every_norm
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_values_and_types_are_those_of_the_fused_kernels(norm: Callable[[], nn.Module], dtype: torch.dtype) -> None:
    layer, x = network_of(norm)[2], torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(0)).to(dtype)  # type: ignore[index]
    layer.to(torch.float64 if dtype == torch.float64 else torch.float32)  # in low precision weights stay as they are
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        fused = layer(x)
        with written_out():
            written = layer(x)
    assert written.dtype == fused.dtype
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
    torch.testing.assert_close(written, fused, rtol=tolerance, atol=tolerance)


@every_norm
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_half_precision_can_be_mapped_over(norm: Callable[[], nn.Module], make_episode: Callable[..., object]) -> None:
    """With weights in float32: a traceback before."""
    network = network_of(norm)
    meta = {name: parameter.detach().requires_grad_() for name, parameter in network.named_parameters()}
    context = Context(network=network, ways=3, training=True, precision="bfloat16", batched=True)
    found = MAML(inner_lr=0.1).meta_gradient(meta, make_episode(size=2, dtype=torch.float32), context)  # type: ignore[arg-type]
    assert all(tensor.isfinite().all() and tensor.dtype == torch.float32 for tensor in found.gradient.values())


def test_what_torch_refuses_is_refused() -> None:
    mean, var = torch.zeros(3), torch.ones(3)
    with written_out():
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            F.batch_norm(torch.ones(1, 3), None, None, training=True)
        with pytest.raises(ValueError, match="more than 1 spatial element"):
            F.instance_norm(torch.ones(2, 3, 1))
        F.batch_norm(torch.ones(2, 3), mean, var, training=True)
        assert torch.equal(mean, torch.full((3,), 0.1)), "running statistics are torch's business"
        with pytest.raises(RuntimeError, match="updated in place"):
            torch.vmap(lambda x: F.batch_norm(x, mean, var, training=True))(torch.ones(2, 2, 3))


def test_it_ends_with_the_block() -> None:
    with pytest.raises(KeyError), written_out():
        assert is_written_out()
        raise KeyError
    assert not is_written_out()
