"""Networks that lack a derivative: found before a run starts, with the operation, the module and a way out."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from metaray.algorithms import ALGORITHMS, MAML, ProtoNet
from metaray.config import replace
from metaray.data.function_family import FunctionFamily
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.models import Conv4, Custom
from metaray.training.checks.double_backward import first_order_kinds, operation_of
from metaray.training.checks.preflight import preflight

MakeExperiment = Callable[..., Experiment]


class Centres(nn.Module):
    """Distances to learned centres."""

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(6, 8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cdist(x, self.centres, p=1)


class Attention(nn.Module):
    """Each example attends to itself and a copy: a functional operation in a module that has children."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.project(x)[:, None, None].expand(-1, 1, 2, -1)
        return nn.functional.scaled_dot_product_attention(seen, seen, seen).mean(dim=(1, 2))


class OnceSquare(torch.autograd.Function):
    """Its derivative may not be differentiated, but inside a network nobody is told so."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        found: Tensor = 2 * ctx.saved_tensors[0] * slope
        return found


class ForeignSquare(torch.autograd.Function):
    """Its derivative is computed outside of autograd."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return torch.from_numpy(2 * ctx.saved_tensors[0].detach().numpy() * slope.detach().numpy())


class ProperSquare(torch.autograd.Function):
    """Its derivative can be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        found: Tensor = 2 * ctx.saved_tensors[0] * slope
        return found


class Apply(nn.Module):
    """An autograd function after a linear layer."""

    def __init__(self, function: type[torch.autograd.Function]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.function.apply(x)
        return found


class Undifferentiable(nn.Module):
    """Not even a first derivative."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.igamma(x.square() + 1, torch.ones_like(x))


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "hardsigmoid": nn.Hardsigmoid,
    "centres": Centres,
    "attention": Attention,
    "once": lambda: Apply(OnceSquare),
    "foreign": lambda: Apply(ForeignSquare),
    "proper": lambda: Apply(ProperSquare),
    "igamma": Undifferentiable,
    "gru": lambda: First(nn.GRU(8, 6)),
    "rrelu": nn.RReLU,
}


class First(nn.Module):
    """The first of the results of a module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.module(x)[0]
        return found


class Net(nn.Module):
    """A layer to be tried between others that are fine."""

    def __init__(self, *, feature_shape: tuple[int, ...], outputs: int | None, layer: str) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(feature_shape), 8), nn.ReLU(), LAYERS[layer]())
        self.head = nn.LazyLinear(outputs or 4)
        self.head(self.body(torch.zeros(2, *feature_shape)))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.body(x))
        return found


def net(layer: str) -> Custom:
    return Custom(path=f"{__name__}:Net", options={"layer": layer})


LACKING = {
    "hardsigmoid": r"'aten::hardsigmoid_backward' in module 'body\.3' \(Hardsigmoid\)",
    "centres": r"'aten::_cdist_backward' in module 'body\.3' \(Centres\)",
    "attention": r"'aten::_scaled_dot_product_\w+_backward' in module 'body\.3' \(Attention\)",
    "once": r"'OnceSquare' in module 'body\.3' \(Apply\)",
    "foreign": r"'ForeignSquare' in module 'body\.3' \(Apply\)",
}


@pytest.mark.parametrize("layer", LACKING)
def test_a_second_derivative_that_is_missing(layer: str, make_experiment: MakeExperiment) -> None:
    told = (
        f"^the second derivative of {LACKING[layer]} is not implemented, which maml needs; "
        r"first-order algorithms would work: algorithm\.kind=\w+"
    )
    with pytest.raises(InputError, match=told):
        preflight(make_experiment(model=net(layer)))


@pytest.mark.parametrize("layer", ["hardsigmoid", "centres"])
def test_a_second_derivative_that_is_missing_in_chunks(layer: str, make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match=f"the second derivative of {LACKING[layer]} is not implemented, which maml"):
        preflight(make_experiment(model=net(layer), chunk_size=2))


@pytest.mark.parametrize("algorithm", [MAML(second_order=False), ProtoNet()])
@pytest.mark.parametrize("layer", LACKING)
def test_first_order_algorithms_do_without(
    layer: str, algorithm: MAML | ProtoNet, make_experiment: MakeExperiment
) -> None:
    preflight(make_experiment(model=net(layer), algorithm=algorithm))


def test_what_can_be_differentiated_twice_passes(make_experiment: MakeExperiment) -> None:
    preflight(make_experiment(model=net("proper")))
    preflight(make_experiment(model=net("gru")))


@pytest.mark.parametrize("algorithm", [MAML(), ProtoNet()])
def test_a_first_derivative_that_is_missing(algorithm: MAML | ProtoNet, make_experiment: MakeExperiment) -> None:
    where = r"in module 'body\.3' \(Undifferentiable\)"
    told = rf"^the derivative of 'aten::igamma' {where} is not implemented, which {algorithm.kind} needs$"
    with pytest.raises(InputError, match=told):
        preflight(make_experiment(model=net("igamma"), algorithm=algorithm))


@pytest.mark.parametrize(("layer", "where"), [("rrelu", r"'body\.3' \(RReLU\)"), ("gru", r"'body\.3\.module' \(GRU\)")])
def test_what_cannot_be_mapped_over(layer: str, where: str, make_experiment: MakeExperiment) -> None:
    told = f"cannot be mapped over in chunks of 3, because torch.vmap fails in module {where}: .*; set chunk_size=1$"
    with pytest.raises(InputError, match=told):
        preflight(make_experiment(model=net(layer), chunk_size=3))
    preflight(make_experiment(model=net(layer), chunk_size=1))


def test_values_that_are_not_finite_are_left_to_training(make_experiment: MakeExperiment) -> None:
    preflight(make_experiment(algorithm=MAML(inner_lr=1e38, inner_steps=3)))


def test_the_algorithms_that_would_do(make_experiment: MakeExperiment) -> None:
    kinds = first_order_kinds(make_experiment(model=Conv4(channels=2)))
    assert "protonet" in kinds and not {"maml", "nearest_neighbor"} & set(kinds)
    steps = [ALGORITHMS[kind].gradient_steps for kind in kinds]
    assert steps == sorted(steps, reverse=True), "those with inner steps are nearer to MAML"
    assert first_order_kinds(make_experiment(model=Conv4(channels=2), algorithm=ProtoNet()))[0] == "protonet"


def test_in_regression_only_those_that_take_values(make_experiment: MakeExperiment) -> None:
    episodes = EpisodeSpec(ways=1, shots=5, queries=5)
    experiment = make_experiment(source=FunctionFamily(), episodes=episodes, model=net("hardsigmoid"))
    kinds = first_order_kinds(experiment)
    assert kinds and all(not ALGORITHMS[kind].needs_classes for kind in kinds)
    with pytest.raises(InputError, match="'aten::hardsigmoid_backward' in module .* algorithm.kind="):
        preflight(experiment)
    for kind in kinds:
        preflight(replace(experiment, algorithm=ALGORITHMS[kind]()))


@pytest.mark.parametrize(
    ("message", "operation"),
    [
        ("the derivative for '_cdist_backward' is not implemented.", "aten::_cdist_backward"),
        ("derivative for aten::_ctc_loss_backward is not implemented", "aten::_ctc_loss_backward"),
        ("the derivative for 'igamma: input' is not implemented.", "aten::igamma"),
        (
            "the derivative for '_cudnn_rnn_backward' is not implemented. Double backwards is not supported for CuDNN "
            "RNNs due to limitations in the CuDNN API.",
            "aten::_cudnn_rnn_backward",
        ),
        ("mat1 and mat2 shapes cannot be multiplied", None),
    ],
)
def test_what_torch_says(message: str, operation: str | None) -> None:
    assert operation_of(RuntimeError(message)) == operation
