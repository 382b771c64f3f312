"""Steps by hand: each optimiser against its closed form, with groups and schedules."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from metaray.errors import InputError
from metaray.optimizers import SGD, Adam, AdamW, CustomOptimizer, Group, OuterOptimizer
from metaray.optimizers.schedules import LinearWarmUp, Step
from metaray.optimizers.stepping import build_optimizer, name_of, update
from tests.optimizers import own

START = {"body.weight": [1.0, -2.0], "head.weight": [3.0], "head.bias": [0.5]}
GRADIENTS = [{"body.weight": [0.1, 0.4], "head.weight": [-0.3], "head.bias": [2.0]}]
GRADIENTS += [{"body.weight": [-0.2, 0.3], "head.weight": [0.7], "head.bias": [0.0]}] * 2


def stepped(optimizer: OuterOptimizer, steps: int = 3, num_steps: int = 3) -> dict[str, list[float]]:
    meta = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in START.items()}
    built = build_optimizer(optimizer, meta)
    for step in range(steps):
        gradient: dict[str, Tensor] = {n: torch.tensor(v, dtype=torch.float64) for n, v in GRADIENTS[step].items()}
        update(optimizer, built, meta, gradient, step=step, num_steps=num_steps)
    return {name: tensor.tolist() for name, tensor in meta.items()}


def by_hand(
    rule: Any, rates: dict[str, float] | float, decays: dict[str, float] | float = 0.0
) -> dict[str, list[float]]:
    """`rule(w, gradients so far, rate, decay)` gives the next w of each number."""
    found = {}
    for name, values in START.items():
        found[name] = list(values)
        for place, w in enumerate(values):
            memory: dict[str, float] = {}
            for number, gradients in enumerate(GRADIENTS):
                rate = rates if isinstance(rates, float) else rates[name]
                decay = decays if isinstance(decays, float) else decays[name]
                w = rule(w, gradients[name][place], rate, decay, memory, number + 1)
            found[name][place] = w
    return found


def sgd(mu: float, *, nesterov: bool = False) -> Any:
    def rule(w: float, g: float, rate: float, decay: float, memory: dict[str, float], t: int) -> float:
        g += decay * w
        v = memory["v"] = mu * memory["v"] + g if "v" in memory else g
        return w - rate * (g + mu * v if nesterov else v)

    return rule


def adam(b1: float, b2: float, *, decoupled: bool) -> Any:
    def rule(w: float, g: float, rate: float, decay: float, memory: dict[str, float], t: int) -> float:
        if decoupled:
            w -= rate * decay * w
        else:
            g += decay * w
        m = memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
        v = memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g * g
        return w - rate * (m / (1 - b1**t)) / (math.sqrt(v / (1 - b2**t)) + 1e-8)

    return rule


def assert_close(found: dict[str, list[float]], expected: dict[str, list[float]]) -> None:
    for name in START:
        assert found[name] == pytest.approx(expected[name], rel=1e-12), name


@pytest.mark.parametrize(
    ("optimizer", "rule"),
    [
        (SGD(outer_lr=0.1), sgd(0.0)),
        (SGD(outer_lr=0.1, weight_decay=0.3), sgd(0.0)),
        (SGD(outer_lr=0.1, weight_decay=0.3, momentum=0.8), sgd(0.8)),
        (SGD(outer_lr=0.1, weight_decay=0.3, momentum=0.8, nesterov=True), sgd(0.8, nesterov=True)),
        (Adam(outer_lr=0.1, weight_decay=0.3, betas=(0.7, 0.8)), adam(0.7, 0.8, decoupled=False)),
        (AdamW(outer_lr=0.1, weight_decay=0.3, betas=(0.7, 0.8)), adam(0.7, 0.8, decoupled=True)),
    ],
    ids=lambda value: str(value) if isinstance(value, OuterOptimizer) else "rule",  # a function's has its address
)
def test_three_steps(optimizer: OuterOptimizer, rule: Any) -> None:
    assert_close(stepped(optimizer), by_hand(rule, 0.1, optimizer.weight_decay))


@pytest.mark.parametrize("cls", [SGD, AdamW])
def test_groups_have_rates_and_decays_of_their_own(cls: type[SGD | AdamW]) -> None:
    groups = {"head.*": Group(outer_lr=0.5), "*.bias": Group(weight_decay=0.0), "head.bias": Group(outer_lr=0.0)}
    optimizer = cls(outer_lr=0.1, weight_decay=0.2, groups=groups)
    rule = sgd(0.0) if cls is SGD else adam(0.9, 0.999, decoupled=True)
    rates = {"body.weight": 0.1, "head.weight": 0.5, "head.bias": 0.0}
    assert_close(stepped(optimizer), by_hand(rule, rates, 0.2))
    assert stepped(optimizer)["head.bias"] == START["head.bias"], "of two patterns that fit, the longest decides"


def test_a_schedule_goes_over_all_groups() -> None:
    optimizer = SGD(outer_lr=0.1, groups={"head.*": Group(outer_lr=1.0)}, schedule=Step(decay=0.5, decay_every=1))
    expected = dict(START)
    for number, gradients in enumerate(GRADIENTS):
        for name in expected:
            rate = (1.0 if name.startswith("head") else 0.1) * 0.5**number
            expected[name] = [w - rate * g for w, g in zip(expected[name], gradients[name], strict=True)]
    assert_close(stepped(optimizer), expected)


def test_one_group_gives_the_bits_that_none_gives() -> None:
    grouped = Adam(outer_lr=0.1, groups={"head.*": Group(), "*": Group(outer_lr=0.1)})
    assert stepped(grouped) == stepped(Adam(outer_lr=0.1))


def test_a_pattern_that_fits_nothing_is_refused_with_the_nearest() -> None:
    told = (
        r"optimizer.groups: pattern 'haed.\*' fits no parameter. Did you mean 'head.\w+' or 'head.\w+'\? Parameters: "
    )
    with pytest.raises(InputError, match=told):
        stepped(SGD(groups={"haed.*": Group(), "*": Group()}))


def test_any_class_of_torch() -> None:
    found = stepped(CustomOptimizer(path="torch.optim:RMSprop", outer_lr=0.1, options={"alpha": 0.5}))

    def rule(w: float, g: float, rate: float, decay: float, memory: dict[str, float], t: int) -> float:
        v = memory["v"] = 0.5 * memory.get("v", 0.0) + 0.5 * g * g
        return w - rate * g / (math.sqrt(v) + 1e-8)

    assert_close(found, by_hand(rule, 0.1))
    plain = stepped(CustomOptimizer(path="torch.optim:AdamW", outer_lr=0.1, weight_decay=0.2))
    assert plain == stepped(AdamW(outer_lr=0.1, weight_decay=0.2)), "our own weight decay, not torch's default"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"path": "torch.optim:Rprop", "weight_decay": 0.1}, "optimizer torch.optim:Rprop has no weight decay"),
        ({"path": "torch.optim:SGD", "options": {"momentun": 1}}, "torch.optim:SGD can't be called with .*momentun"),
        ({"path": f"{own.__name__}:Partial"}, "must step the parameter groups that it is given, and nothing else"),
        ({"path": f"{own.__name__}:Strange"}, "own:Strange is Strange, not a torch.optim.Optimizer"),
        ({"path": "torch.optim:SGD", "options": {"nesterov": True}}, r"(?s)SGD cannot be built.*Nesterov momentum"),
    ],
)
def test_what_cannot_be_built(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        stepped(CustomOptimizer.parse(fields, where="optimizer"))


def test_what_no_description_can_be() -> None:
    with pytest.raises(InputError, match="options: 'lr' is given by optimizer.outer_lr: leave it out here"):
        CustomOptimizer.parse({"path": "torch.optim:SGD", "options": {"lr": 1}}, where="optimizer")
    with pytest.raises(InputError, match=r"nesterov: Nesterov's momentum needs a momentum above 0"):
        SGD.parse({"nesterov": True}, where="optimizer")
    with pytest.raises(InputError, match="groups.head.*.outer_lr: .*greater than or equal to 0"):
        SGD.parse({"groups": {"head.*": {"outer_lr": -1}}}, where="optimizer")
    with pytest.raises(InputError, match="unknown key 'groups.*.outer_lrr'"):
        SGD.parse({"groups": {"*": {"outer_lrr": 1}}}, where="optimizer")


def test_what_they_are_called() -> None:
    assert name_of(Adam()) == "adam" and name_of(CustomOptimizer(path="torch.optim:SGD")) == "torch.optim:SGD"
    assert name_of(own.Signum()) == f"{own.__name__}:Signum"


def test_a_schedule_of_its_own_after_a_warm_up() -> None:
    optimizer = SGD(outer_lr=1.0, schedule=own.Polynomial(power=2), warmup_steps=2)
    assert [optimizer.lr_at(step, 6) for step in range(6)] == pytest.approx([0.5, 1.0, 1.0, 0.5625, 0.25, 0.0625])
    warm = SGD(outer_lr=1.0, schedule=LinearWarmUp(steps=2, then=own.Polynomial(power=2)))
    assert [warm.lr_at(step, 6) for step in range(6)] == [optimizer.lr_at(step, 6) for step in range(6)]
    with pytest.raises(InputError, match="optimizer.schedule: Negative gives the rate -1.0 at step 5"):
        SGD(outer_lr=1.0, schedule=own.Negative()).lr_at(5, 6)


def test_a_linear_schedule() -> None:
    rates = [Adam(outer_lr=0.1, schedule="linear", final_lr_fraction=0.2).lr_at(step, 4) for step in range(5)]
    assert rates == pytest.approx([0.1, 0.08, 0.06, 0.04, 0.02])


def test_a_name_that_needs_fields_is_refused() -> None:
    with pytest.raises(InputError, match="schedule linear_warm_up: steps is missing"):
        Adam.parse({"schedule": "linear_warm_up"}, where="optimizer")
