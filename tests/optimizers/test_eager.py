"""Optimisers without torch's guards: torch's numbers, hooks and records, and none of its compiler."""

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch

from metaray.optimizers.eager import eager

CASES: list[tuple[type[torch.optim.Optimizer], dict[str, Any]]] = [
    (torch.optim.Adam, {"weight_decay": 0.01}),
    (torch.optim.AdamW, {"weight_decay": 0.01}),
    (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
]


def steps(cls: type[torch.optim.Optimizer], options: dict[str, Any], *, reload_at: int) -> tuple[torch.Tensor, Any]:
    """Weights and state after six steps, of which some follow a load of the state saved before them."""
    torch.manual_seed(0)
    weight = torch.randn(4, 3, requires_grad=True)
    groups = [{"params": [weight], "lr": 0.3}]
    made: Any = cls
    built = made(groups, foreach=False, **options)
    for step in range(6):
        if step == reload_at:
            saved = copy.deepcopy(built.state_dict())
            built = made(groups, foreach=False, **options)
            built.load_state_dict(saved)
        weight.square().sum().backward()
        built.step()
        assert weight.requires_grad and not weight.grad_fn
        built.zero_grad()
        assert weight.grad is None
    return weight.detach(), built.state_dict()


@pytest.mark.parametrize(("cls", "options"), CASES, ids=lambda case: getattr(case, "__name__", ""))
def test_the_same_bits_and_the_same_state(cls: type[torch.optim.Optimizer], options: dict[str, Any]) -> None:
    expected, its_state = steps(cls, options, reload_at=3)
    found, state = steps(eager(cls), options, reload_at=3)
    assert torch.equal(found, expected) and state["param_groups"] == its_state["param_groups"]
    assert state["state"][0].keys() == its_state["state"][0].keys()
    for key, value in its_state["state"][0].items():
        assert torch.equal(torch.as_tensor(state["state"][0][key]), torch.as_tensor(value))


def test_closures_and_hooks_are_called() -> None:
    weight = torch.ones(2, requires_grad=True)
    built = eager(torch.optim.SGD)([weight], lr=0.5)
    told = []
    built.register_step_post_hook(lambda *_: told.append("after"))

    def loss() -> float:
        found = weight.sum()
        found.backward()
        return float(found.detach())

    assert built.step(loss) == 2.0 and told == ["after"] and weight.tolist() == [0.5, 0.5]


def test_a_step_imports_no_compiler() -> None:
    code = (
        "import sys, torch\n"
        "from metaray.optimizers import OPTIMIZERS\n"
        "from metaray.optimizers.stepping import build_optimizer, update\n"
        "for kind in ('adam', 'adamw', 'sgd'):\n"
        "    recipe = OPTIMIZERS[kind].parse({}, where='optimizer')\n"
        "    meta = {'w': torch.ones(2, requires_grad=True)}\n"
        "    built = build_optimizer(recipe, meta)\n"
        "    update(recipe, built, meta, {'w': torch.ones(2)}, step=0, num_steps=2)\n"
        "    built.load_state_dict(built.state_dict())\n"
        "print([name for name in ('torch._dynamo', 'torch._inductor', 'sympy') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
