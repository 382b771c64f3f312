"""Inner optimisers by themselves: torch's own steps, derivatives where gradients are zero, and how they are named."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from metaray.algorithms import ALGORITHMS, MAML, InnerAdam, InnerMomentum, InnerOptimizer, InnerSGD, Reptile
from metaray.algorithms.families.inner_loop import descended
from metaray.config import replace
from metaray.errors import InputError
from metaray.experiment import Evaluation, Experiment
from metaray.experiment.overrides import override
from metaray.imports import dump_kind, parse_kind
from metaray.optimizers.eager import eager
from metaray.tuning.space import parse_space
from tests.algorithms.quadratic import at, of_square
from tests.conformance.bench import Bench, Trial, close

STEPPED = (InnerMomentum(momentum=0.8), InnerAdam(betas=(0.7, 0.9), eps=1e-12))


@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_the_steps_are_those_of_torch(kind: str) -> None:
    """But for eps, which torch adds outside of the root."""
    start, target = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([0.3, 0.1, 0.6]).double()
    parameter = start.clone().requires_grad_()
    theirs: torch.optim.Optimizer = (
        eager(torch.optim.SGD)([parameter], 0.1, momentum=0.8)
        if kind == "momentum"
        else eager(torch.optim.Adam)([parameter], 0.1, betas=(0.7, 0.9), eps=1e-15)
    )
    for _ in range(7):
        theirs.zero_grad()
        ((parameter - target) ** 4).sum().backward()
        theirs.step()
    mine = InnerMomentum(momentum=0.8) if kind == "momentum" else InnerAdam(betas=(0.7, 0.9), eps=1e-30)
    _, context = at(MAML(), 1.0)
    found = descended(
        lambda theta: ((theta["w"] - target) ** 4).sum(),
        {"w": start.clone().requires_grad_()},
        {"w": 0.1},
        context,
        optimizer=mine,
        steps=7,
        second_order=True,
    )
    close(found["w"].detach(), parameter.detach(), tolerance=1e-9)


@pytest.mark.parametrize("optimizer", STEPPED, ids=str)
def test_closed_forms_of_two_steps(optimizer: InnerOptimizer) -> None:
    """L(w) = w^2: what two steps lead to, and its derivative, written out."""
    rate, w = 0.1, torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    if isinstance(optimizer, InnerMomentum):
        once = w - rate * 2 * w
        led = once - rate * (0.8 * 2 * w + 2 * once)
    else:
        once = w - rate * 2 * w / (4 * w**2 + 1e-12).sqrt()
        first = 0.7 * 0.3 * 2 * w + 0.3 * 2 * once
        second = 0.9 * 0.1 * 4 * w**2 + 0.1 * 4 * once**2
        led = once - rate * first / (1 - 0.49) / (second / (1 - 0.81) + 1e-12).sqrt()
    (expected,) = torch.autograd.grad(led**2, w)
    found = of_square(MAML(inner_lr=rate, inner_steps=2, inner_optimizer=optimizer), 3.0)
    close(found.outcome.loss[0], led.detach() ** 2)
    close(found.gradient["w"], expected)


def test_first_order_leaves_derivatives_of_the_steps_out() -> None:
    algorithm = MAML(inner_lr=0.1, inner_steps=2, inner_optimizer=InnerAdam(), second_order=False)
    meta, context = at(algorithm, 3.0)
    support = Bench(Trial("maml", "regression", "inductive")).episode().support
    led = algorithm.adapt(meta, support._replace(x=torch.ones(2, 1).double(), y=torch.zeros(2, 1).double()), context)
    close(of_square(algorithm, 3.0).gradient["w"], 2 * led["w"].detach())


@pytest.mark.parametrize("optimizer", [InnerAdam(), InnerMomentum()], ids=str)
def test_derivatives_exist_where_gradients_are_zero(optimizer: InnerOptimizer) -> None:
    """At the minimum of L: the direction's slope there is at most the Hessian by the root of eps."""
    found = of_square(MAML(inner_lr=0.1, inner_steps=1, inner_optimizer=optimizer), 0.0)
    assert torch.isfinite(found.gradient["w"]) and float(found.gradient["w"]) == 0

    gradient = torch.zeros((), dtype=torch.float64, requires_grad=True)
    directions, _ = optimizer.directions({"w": gradient}, optimizer.begin({"w": gradient.detach()}))
    (slope,) = torch.autograd.grad(directions["w"], gradient, create_graph=True)
    assert float(slope.detach()) == pytest.approx(1e4 if isinstance(optimizer, InnerAdam) else 1)


def test_a_task_knows_nothing_of_the_one_before() -> None:
    bench = Bench(Trial("maml", "classification", "inductive"), settings={"inner_optimizer": "adam"}, training=False)
    support = bench.episode().support
    once, again = (bench.algorithm.adapt(bench.meta, support, bench.context) for _ in range(2))
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_plain_steps_are_the_default_and_unwritten() -> None:
    for kind, cls in ALGORITHMS.items():
        if "inner_optimizer" in cls.model_fields and kind != "reptile":
            assert cls().model_dump()["inner_optimizer"] == {"kind": "sgd"}
            assert "inner_optimizer" not in dump_kind(cls(), ALGORITHMS, every_field=False)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("adam", InnerAdam()),
        ({"kind": "adam", "betas": [0.0, 0.9]}, InnerAdam(betas=(0.0, 0.9))),
        ({"kind": "momentum", "momentum": 0.5}, InnerMomentum(momentum=0.5)),
        (InnerMomentum(), InnerMomentum()),
    ],
)
def test_how_they_are_named(said: Any, meant: InnerOptimizer) -> None:
    algorithm = MAML.parse({"inner_optimizer": said}, where="maml")
    assert algorithm.inner_optimizer == meant
    written = dump_kind(algorithm, ALGORITHMS, every_field=False)
    again = parse_kind(written, ALGORITHMS, MAML, what="algorithm")
    assert again == algorithm and written["inner_optimizer"]["kind"] == meant.kind


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("adma", "unknown inner optimiser 'adma'. Did you mean 'adam'?"),
        ({"kind": "adam", "eps": 0}, "greater than 0"),
        ({"kind": "adam", "beta": 0.9}, "unknown key"),
        ({"kind": "momentum", "momentum": 1}, "less than 1"),
    ],
)
def test_wrong_ones(said: Any, expected: str) -> None:
    with pytest.raises(InputError, match=re.escape(expected)):
        MAML.parse({"inner_optimizer": said}, where="maml")


def test_set_and_search_reach_them(make_experiment: Any) -> None:
    experiment: Experiment = replace(make_experiment(), algorithm=MAML(), evaluation=Evaluation())
    found = override(experiment, ["algorithm.inner_optimizer=adam", 'algorithm.adapts=["head.*"]']).algorithm
    assert found == MAML(inner_optimizer=InnerAdam(), adapts=("head.*",))
    found = override(
        experiment, ["algorithm.inner_optimizer.kind=adam", "algorithm.inner_optimizer.eps=0.01"]
    ).algorithm
    assert found == MAML(inner_optimizer=InnerAdam(eps=0.01))
    (domain,) = parse_space(["algorithm.inner_optimizer=choice(sgd, adam)"]).values()
    values = {str(override(experiment, [f"algorithm.inner_optimizer={value}"]).algorithm) for value in domain.grid(2)}
    assert len(values) == 2
    (domain,) = parse_space(["algorithm.adapts=choice(['head.*'], ['*.bias', 'head.*'])"]).values()
    assert domain.grid(2) == [["head.*"], ["*.bias", "head.*"]]


def test_reptiles_adam_is_that_of_its_paper() -> None:
    """A name alone is what it was; with fields any of them."""
    assert Reptile().inner_optimizer == "adam" and Reptile.parse({"inner_optimizer": "sgd"}, where="").model_dump()
    written = dump_kind(Reptile(inner_optimizer=InnerAdam(betas=(0.0, 0.999))), ALGORITHMS)
    again = parse_kind(written, ALGORITHMS, Reptile, what="algorithm")
    assert isinstance(again, Reptile)
    bench = Bench(Trial("reptile", "classification", "inductive"))
    support = bench.episode().support

    def adapted(algorithm: Reptile) -> dict[str, Tensor]:
        return replace(algorithm, eval_steps=3).adapt(bench.meta, support, bench.context)

    papers, general = adapted(Reptile()), adapted(again)
    for name in papers:
        assert torch.allclose(papers[name], general[name], atol=1e-4)
    plain, sgd = (adapted(Reptile(inner_optimizer=each)) for each in ("sgd", InnerSGD()))
    assert all(torch.equal(plain[name], sgd[name]) for name in plain)
