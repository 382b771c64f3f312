"""Outer optimisers: rates at the ends, clipping, what they refuse."""

import itertools
import math
from typing import Any

import pytest
import torch

from metaray.errors import InputError
from metaray.optimizers import OPTIMIZERS, SGD, Adam
from metaray.optimizers.schedules import Piecewise
from metaray.optimizers.stepping import build_optimizer, clip_, global_norm


def lrs(num_steps: int, **fields: Any) -> list[float]:
    optimizer = Adam(outer_lr=0.1, **fields)
    return [optimizer.lr_at(step, num_steps) for step in range(num_steps + 1)]


def test_constant() -> None:
    assert set(lrs(10)) == {0.1}


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "step", "piecewise"])
def test_warm_up_is_linear_and_ends_at_the_full_rate(schedule: str) -> None:
    found = lrs(100, warmup_steps=4, schedule=schedule)
    assert found[:5] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])


@pytest.mark.parametrize("floor", [0.0, 0.2])
@pytest.mark.parametrize("warmup", [0, 10])
def test_cosine_runs_from_the_full_rate_to_its_floor(floor: float, warmup: int) -> None:
    found = lrs(110, schedule="cosine", final_lr_fraction=floor, warmup_steps=warmup)[warmup:]
    assert found[0] == pytest.approx(0.1) and found[-1] == pytest.approx(0.1 * floor, abs=1e-15)
    assert found[len(found) // 2] == pytest.approx(0.1 * (1 + floor) / 2)
    assert all(a > b for a, b in itertools.pairwise(found))
    assert Adam(schedule="cosine").lr_at(500, 100) == pytest.approx(0)


def test_steps_multiply() -> None:
    found = lrs(6, schedule="step", decay=0.5, decay_every=2)
    assert found == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.0125])


def test_pieces_begin_at_shares_of_the_run() -> None:
    schedule = Piecewise(starts=(0.5, 0.75), factors=(0.1, 0.01))
    assert lrs(8, schedule=schedule) == pytest.approx([0.1] * 4 + [0.01] * 2 + [0.001] * 3)
    # MetaOptNet's 60 epochs.
    found = SGD(outer_lr=0.1, schedule="piecewise")
    rates = [found.lr_at(epoch, 60) for epoch in (0, 19, 20, 39, 40, 49, 50, 59)]
    assert rates == pytest.approx([0.1, 0.1, 0.006, 0.006, 0.0012, 0.0012, 0.00024, 0.00024])


@pytest.mark.parametrize(("starts", "factors"), [((0.5,), (0.1, 0.2)), ((0.5, 0.2), (0.1, 0.2)), ((0.5, 0.5), (1, 2))])
def test_pieces_that_do_not_fit(starts: tuple[float, ...], factors: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="piecewise has . starts .* let the starts rise"):
        Piecewise.parse({"starts": starts, "factors": factors}, where="schedule")


def test_a_run_shorter_than_its_warm_up() -> None:
    assert lrs(2, schedule="cosine", warmup_steps=10) == pytest.approx([0.01, 0.02, 0.03])


def test_global_norm_and_clipping() -> None:
    gradient = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[4.0]])}
    assert global_norm(gradient) == 5.0 and global_norm({}) == 0.0
    clip_(gradient, 5.0, 10.0)
    assert gradient["a"].tolist() == [3.0, 0.0]
    clip_(gradient, 5.0, 2.5)
    assert gradient["a"].tolist() == [1.5, 0.0] and gradient["b"].tolist() == [[2.0]]


def test_a_norm_that_overflows_float32_is_still_finite() -> None:
    assert global_norm({"a": torch.full((4,), 1e30)}) == pytest.approx(2e30)
    assert math.isnan(global_norm({"a": torch.tensor([math.nan])}))


@pytest.mark.parametrize(
    ("kind", "cls"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_kinds(kind: str, cls: type[torch.optim.Optimizer]) -> None:
    recipe = OPTIMIZERS[kind].parse({"outer_lr": 0.3, "weight_decay": 0.01}, where="optimizer")
    built = build_optimizer(recipe, {"w": torch.zeros(2, requires_grad=True)})
    group = built.param_groups[0]
    assert isinstance(built, cls) and type(built).__name__ == cls.__name__
    assert group["lr"] == 0.3 and group["weight_decay"] == 0.01 and group["foreach"] is False


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("outer_lr", 0),
        ("outer_lr", math.inf),
        ("warmup_steps", -1),
        ("final_lr_fraction", 1.5),
        ("decay", 0),
        ("decay_every", 0),
        ("weight_decay", -0.1),
        ("momentum", 1),
        ("clip_norm", 0),
    ],
)
def test_out_of_range(field: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"optimizer: {field}: .*\(got {value}\)"):
        Adam.parse({field: value}, where="optimizer")


def test_betas_out_of_range() -> None:
    with pytest.raises(InputError, match=r"betas\.0: .*less than 1 \(got 1\.5\)"):
        Adam.parse({"betas": [1.5, 0.9]}, where="optimizer")
