"""torch's own optimisers without torch's compiler.

torch guards its optimisers against being traced, and for that imports `torch._dynamo` as soon as one is built. That
takes as long as `import torch` itself, in every process, for what eager code never asks.
"""

import inspect
from typing import Any, TypeVar

import torch
from torch.optim import Optimizer

O = TypeVar("O", bound=Optimizer)  # noqa: E741

GUARDED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def eager(cls: type[O]) -> type[O]:
    """A subclass of an optimiser whose functions are never compiled; its updates are the same, bit for bit.

    Args:
        cls: An optimiser class of torch whose `step` needs no gradient.
    """
    step = inspect.unwrap(cls.step)

    @torch.no_grad()
    def _step(self: Optimizer, closure: Any = None) -> Any:
        return step(self, closure)

    inside = {name: inspect.unwrap(getattr(cls, name)) for name in GUARDED}
    made: type[O] = type(cls.__name__, (cls,), {**inside, "step": _step, "__module__": cls.__module__})
    return made
