"""What a network of the user's own does wrong is told with the user's own line, before anything starts."""

import threading
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metaray.algorithms import MAML, ProtoNet
from metaray.algorithms.context import Context, Tensors
from metaray.episodes.tensors import Examples
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.models import Custom, Model
from metaray.training.checks.preflight import preflight

MakeExperiment = Callable[..., Experiment]
HERE = r"tests/training/checks/test_users_network\.py:\d+"


class Net(nn.Module):
    def __init__(self, *, feature_shape: tuple[int, ...], outputs: int | None, how: str = "") -> None:
        super().__init__()
        self.how = how
        self.fc = nn.Linear(feature_shape[-1] ** 2, 8)
        self.out = nn.Linear(8, outputs or 4)
        self.batches = 0
        if how == "constructor":
            raise KeyError(how)
        if how == "exits":
            raise SystemExit(how)
        if how == "lazy":
            self.out = nn.LazyLinear(outputs or 4)
        if how == "lazy norm":
            self.norm = nn.LazyBatchNorm1d()
        if how == "lock":
            self.lock = threading.Lock()
            self.function = lambda x: x
        if how == "numpy":
            self.fc.weight.data.mul_(np.random.default_rng().random())
        if how == "double":
            self.double()

    def forward(self, x: Tensor) -> Any:
        y = self.out(self.fc(x.flatten(1)).tanh())
        if self.how == "index":
            return [y][1]
        if self.how == "assertion":
            assert y.shape == (0,), "a shape of my own"
        if self.how == "later":
            return self.late(x, y)
        if self.how == "training" and self.training:
            raise ValueError("not in training")
        wrong = {
            "tuple": (y, x),
            "list": [y],
            "dict": {"logits": y, "features": x},
            "none": None,
            "int": y.long(),
            "argmax": y.argmax(-1),
            "bool": y > 0,
            "complex": y + 0j,
            "numpy output": y.detach().numpy(),
        }
        return wrong.get(self.how, y)

    def late(self, x: Tensor, y: Tensor) -> Tensor:
        if len(x) > 2:
            raise AttributeError("later")
        return y


SHARED = nn.Linear(256, 8)
WEIGHT = nn.Parameter(torch.zeros(8, 256))


def shared(*, feature_shape: tuple[int, ...], outputs: int | None, how: str) -> nn.Module:
    network = Net(feature_shape=feature_shape, outputs=outputs)
    if how == "module":
        network.fc = SHARED
    if how == "tensor":
        network.fc.weight = WEIGHT
    return network


def custom(how: str, name: str = "Net") -> Custom:
    return Custom(path=f"{__name__}:{name}", options={"how": how})


class Own(Model):
    kind: ClassVar[str] = "own"
    how: str

    def build(self, feature_shape: tuple[int, ...], outputs: int | None) -> nn.Module:
        if self.how == "nothing":
            return None  # type: ignore[return-value]
        return Net(feature_shape=feature_shape, outputs=outputs, how=self.how)


class Raises(MAML):
    kind: ClassVar[str] = "raises"

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        return dict[str, Tensors]()["b"]


@pytest.mark.parametrize("algorithm", [MAML(), ProtoNet()])
@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("tuple", "its forward returned a tuple of 2, but must return one tensor"),
        ("list", "its forward returned a list of 1, but must"),
        ("dict", "its forward returned a dict of 'logits', 'features', but must"),
        ("none", "its forward returned None, but must"),
        ("numpy output", "its forward returned a ndarray, but must"),
        ("int", "its forward returned a tensor of int64, but must return one of floating-point numbers"),
        ("argmax", "a tensor of int64"),
        ("bool", "a tensor of bool"),
        ("complex", "a tensor of complex64"),
    ],
)
def test_what_forward_returns_is_told_with_the_line_of_its_return(
    how: str, told: str, algorithm: Any, make_experiment: MakeExperiment
) -> None:
    for model in (custom(how), Own(how=how)):
        with pytest.raises(
            InputError, match=rf"(?s){told}.*:\n{HERE}: in forward\n    return wrong\.get\(self\.how, y\)$"
        ):
            preflight(make_experiment(model=model, algorithm=algorithm))


@pytest.mark.parametrize(
    ("how", "line", "error"),
    [
        ("constructor", "raise KeyError(how)", "KeyError: 'constructor'"),
        ("exits", "raise SystemExit(how)", "SystemExit: exits"),
        ("index", "return [y][1]", "IndexError: list index out of range"),
        ("assertion", 'assert y.shape == (0,), "a shape of my own"', "AssertionError: a shape of my own"),
        ("later", 'raise AttributeError("later")', "AttributeError: later"),
        ("training", 'raise ValueError("not in training")', "ValueError: not in training"),
        ("double", "y = self.out(self.fc(x.flatten(1)).tanh())", "RuntimeError: mat1 and mat2 must have the same"),
    ],
)
def test_whatever_a_network_raises_is_told_with_its_line(
    how: str, line: str, error: str, make_experiment: MakeExperiment
) -> None:
    for model in (custom(how), Own(how=how)):
        with pytest.raises(InputError) as refused:
            preflight(make_experiment(model=model))
        text = str(refused.value)
        assert (
            f"    {line}\n" in text
            and f"\nE   {error}" in text
            and "tests/training/checks/test_users_network.py:" in text
        )


def test_an_algorithm_of_ones_own_that_raises(make_experiment: MakeExperiment) -> None:
    told = rf"(?s)experiment .tiny. was tried out, and raised an error:\n{HERE}: in adapt\n    return .*E   KeyError"
    with pytest.raises(InputError, match=told):
        preflight(make_experiment(algorithm=Raises()))


@pytest.mark.parametrize(
    ("how", "part"), [("lazy", r"out.? \(LazyLinear\)"), ("lazy norm", r"norm.? \(LazyBatchNorm1d\)")]
)
def test_lazy_modules_are_refused_by_name(how: str, part: str, make_experiment: MakeExperiment) -> None:
    for model in (custom(how), Own(how=how)):
        with pytest.raises(InputError, match=rf"{part}.*(does not know its shape yet|has no size before it sees data)"):
            preflight(make_experiment(model=model))


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (custom("module", "shared"), rf"its part 'fc' is the same module each time.* \({HERE}: class Net"),
        (custom("tensor", "shared"), r"'fc\.weight' is the same tensor each time"),
        (custom("numpy"), r"two builds with one seed differ in parameter 'fc\.weight'.*torch's generator"),
        (Own(how="nothing"), "build returned NoneType, not a torch.nn.Module"),
    ],
)
def test_two_builds_share_nothing_and_are_equal(model: Model, told: str, make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match=told):
        preflight(make_experiment(model=model))


def test_networks_need_not_be_picklable(make_experiment: MakeExperiment) -> None:
    preflight(make_experiment(model=custom("lock")))
    preflight(make_experiment(model=Own(how="lock")))
