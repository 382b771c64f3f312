"""A user's network made fit for inner loops: batch norm layers become ours, or are refused by name."""

from collections.abc import Callable
from typing import Any, Self, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm

from metaray.errors import InputError
from metaray.models.batch_norm import EpisodicBatchNorm, FrozenBatchNorm
from metaray.models.conversion import convert


class Activated(nn.BatchNorm2d):
    """Batch norm and an activation in one."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class Conditioned(nn.BatchNorm1d):
    """Scale and shift come from somewhere else as well."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.condition = nn.Linear(channels, channels)


NO_DIM: Any = None
"""torch takes None for the whole weight, though its types do not say so."""


class AlwaysJudged(nn.BatchNorm2d):
    def train(self, mode: bool = True) -> Self:
        return super().train(False)


class OtherDefaults(nn.BatchNorm2d):
    """The same as torch's, set up in another way."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=0.1, momentum=0.5)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        pass


def patched() -> nn.Module:
    layer = nn.BatchNorm1d(3)
    layer.forward = torch.relu  # type: ignore[method-assign]
    return layer


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "forward": (lambda: Activated(3), r"module '1' \(Activated\) is a batch norm with forward of its own"),
    "module": (lambda: Conditioned(3), r"\(Conditioned\) is a batch norm with condition of its own"),
    "mode": (lambda: AlwaysJudged(3), r"\(AlwaysJudged\) is a batch norm with train of its own"),
    "instance": (patched, r"\(BatchNorm1d\) is a batch norm with forward of its own"),
    "weight norm": (lambda: weight_norm(nn.BatchNorm1d(3), dim=NO_DIM), "with weight_g, weight_v of its own"),
    "parametrized": (
        lambda: parametrizations.weight_norm(nn.BatchNorm1d(3), dim=NO_DIM),
        r"\(ParametrizedBatchNorm1d\) is a batch norm with .*parametrizations",
    ),
    "lazy": (nn.LazyBatchNorm1d, r"\(LazyBatchNorm1d\) does not know its shape yet"),
    "lazy layer": (lambda: nn.LazyLinear(3), r"\(LazyLinear\) does not know its shape yet"),
    "instance norm": (lambda: nn.InstanceNorm2d(3, track_running_stats=True), "track_running_stats=False"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize(("make", "told"), REFUSED.values(), ids=REFUSED)
def test_what_would_be_lost_is_refused_by_name(make: Callable[[], nn.Module], told: str) -> None:
    with pytest.raises(InputError, match=told):
        convert(nn.Sequential(nn.Flatten(), make()))


def test_a_subclass_that_computes_the_same_is_replaced() -> None:
    network = convert(nn.Sequential(OtherDefaults(3)))
    assert isinstance(network[0], EpisodicBatchNorm) and network[0].eps == 0.1  # type: ignore[index]


def test_a_subclass_of_ours_keeps_what_it_adds() -> None:
    class Ours(EpisodicBatchNorm):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).relu()

    assert (convert(nn.Sequential(Ours(3)))(torch.randn(4, 3)) >= 0).all()


@pytest.mark.parametrize("cls", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm])
@pytest.mark.parametrize(
    "options", [{}, {"affine": False}, {"track_running_stats": False}, {"momentum": None, "eps": 0.1}], ids=str
)
def test_torchs_own_are_replaced_deep_inside(cls: type[nn.BatchNorm2d], options: dict[str, bool]) -> None:
    shape = (4, 3, *[2] * {nn.BatchNorm1d: 0, nn.BatchNorm3d: 3}.get(cls, 2))
    network = nn.Sequential(nn.ModuleDict({"inner": nn.Sequential(cls(3, **options))}), nn.Flatten())
    inner = cast(nn.Sequential, cast(nn.ModuleDict, network[0])["inner"])
    layer = inner[0]
    names = [name for name, _ in network.named_parameters()]
    assert convert(network) is network and isinstance(layer, EpisodicBatchNorm) and layer is inner[0]
    assert layer.eps == options.get("eps", 1e-5) and not list(network.buffers())
    assert [name for name, _ in network.named_parameters()] == names
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = nn.functional.batch_norm(x, None, None, training=True, eps=layer.eps)
    for training in (True, False):
        assert torch.equal(layer.train(training)(x), expected)


def test_the_network_itself_may_be_a_batch_norm() -> None:
    assert isinstance(convert(nn.BatchNorm1d(3)), EpisodicBatchNorm)


class Tied(nn.Module):
    """One layer under two names, in a list and with a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm1d(3)
        self.second = self.first
        self.order = [self.first]
        self.first.register_forward_hook(lambda _module, _inputs, output: output + 7)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.order[0](self.second(x))
        return found


def test_ties_references_and_hooks_stay() -> None:
    network = convert(Tied())
    assert isinstance(network, Tied) and network.first is network.second is network.order[0]
    assert isinstance(network.first, EpisodicBatchNorm) and float(network(torch.randn(4, 3)).detach().mean()) > 6


def test_modules_that_torch_does_not_see_are_refused() -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    vars(network)["rest"] = {"a": [nn.Linear(2, 2)]}
    with pytest.raises(
        InputError, match=r"network itself \(Sequential\) keeps modules in 'rest', a dict, .*ModuleDict"
    ):
        convert(network)


def frozen(layer: nn.Module) -> nn.Module:
    return layer.requires_grad_(False)


def half_frozen() -> nn.Module:
    layer = nn.BatchNorm1d(3)
    layer.weight.requires_grad_(False)
    return layer


RULE: dict[str, tuple[Callable[[], nn.Module], str, bool]] = {
    "all of its own": (lambda: nn.Sequential(nn.Linear(3, 3), frozen(nn.BatchNorm1d(3))), "1", True),
    "half of its own": (lambda: nn.Sequential(half_frozen()), "0", False),
    "no statistics": (lambda: nn.Sequential(frozen(nn.BatchNorm1d(3, track_running_stats=False))), "0", False),
    "none of its own, in a frozen part": (
        lambda: nn.Sequential(nn.Linear(3, 3), frozen(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, affine=False)))),
        "1.1",
        True,
    ),
    "none of its own, in a part that trains": (
        lambda: nn.Sequential(frozen(nn.Linear(3, 3)), nn.Linear(3, 3), nn.BatchNorm1d(3, affine=False)),
        "2",
        False,
    ),
    "no parameters anywhere": (lambda: nn.Sequential(nn.BatchNorm1d(3, affine=False)), "0", False),
    "only judged": (lambda: nn.Sequential(nn.BatchNorm1d(3).eval()), "0", False),
}


@pytest.mark.parametrize(("make", "name", "kept"), RULE.values(), ids=RULE)
def test_which_batch_norm_is_frozen(make: Callable[[], nn.Module], name: str, kept: bool) -> None:
    network = convert(make())
    layer = network.get_submodule(name)
    assert isinstance(layer, FrozenBatchNorm if kept else EpisodicBatchNorm)
    buffers = [f"{name}.running_mean", f"{name}.running_var"] if kept else []
    assert [name for name, _ in network.named_buffers()] == buffers
