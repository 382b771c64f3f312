"""Optimisers and schedules as users write them, right and wrong."""

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from metaray.optimizers import OuterOptimizer
from metaray.optimizers.schedules import Schedule

COUNTER = itertools.count()


class Descent(torch.optim.Optimizer):
    """w <- w - lr * direction(w)."""

    def __init__(self, groups: Any, lr: float = 0.1, **options: Any) -> None:
        super().__init__(groups, {"lr": lr, **options})

    def direction(self, w: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        return grad

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for w in group["params"]:
                w.sub_(self.direction(w, w.grad, group), alpha=group["lr"])


class Nested(Descent):
    """State of every shape: tensors in tuples, counts, text, the parameter itself; a group that changes."""

    def __init__(self, groups: Any, lr: float = 0.1, length: int = 3) -> None:
        super().__init__(groups, lr, length=length, mean_norm=0.0)

    def direction(self, w: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[w]
        if not state:
            state.update(history=[], count=0, of=w, text="naïve", slow={"w": w.detach().clone()}, turned=None)
        state["history"] = [*state["history"], (state["count"], grad.clone())][-group["length"] :]
        state["count"] += 1
        if w.ndim == 2 and state["turned"] is None:
            state["turned"] = torch.zeros(w.shape[::-1]).T
        if state["turned"] is not None:
            state["turned"].mul_(0.9).add_(grad)
        state["slow"]["w"].lerp_(state["of"], 0.3)
        group["mean_norm"] = 0.7 * group["mean_norm"] + 0.3 * float(grad.norm())
        everything: dict[Any, Any] = self.state
        everything.setdefault("all", {}).setdefault("steps", []).append(len(group["params"]))
        mean = sum(g * (1 + number % 2) for number, g in state["history"]) / len(state["history"])
        found: Tensor = mean + 0.1 * (w - state["slow"]["w"]) + group["mean_norm"] * 1e-3
        return found if state["turned"] is None else found + state["turned"]


class Hidden(Descent):
    """Keeps its momentum where no checkpoint looks."""

    def direction(self, w: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        hidden: dict[Any, Tensor] = self.__dict__.setdefault("hidden", {})
        hidden[w] = grad + 0.9 * hidden.get(w, torch.zeros_like(w))
        return hidden[w]


class Drawing(Descent):
    def direction(self, w: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        return grad + 0.01 * torch.randn_like(w)


class Counting(Descent):
    def direction(self, w: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        return grad * (1 + next(COUNTER))


class Queue(Descent):
    def direction(self, w: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        self.state[w].setdefault("recent", deque(maxlen=2)).append(grad)
        return grad


class Sharing(Descent):
    def direction(self, w: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        self.state[w]["flat"] = w.detach().view(-1)
        return grad


class Broken(Descent):
    def direction(self, w: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        raise ZeroDivisionError("no direction")


class Partial(torch.optim.SGD):
    """Leaves out a parameter."""

    def __init__(self, groups: Any, lr: float) -> None:
        super().__init__([{**groups[0], "params": groups[0]["params"][1:]}], lr)


class Strange:
    def __init__(self, groups: Any, lr: float) -> None:
        pass


class Signs(Descent):
    def direction(self, w: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        mean: Tensor = self.state[w].setdefault("mean", torch.zeros_like(w))
        return mean.lerp_(grad, 1 - group["momentum"]).sign()


class Signum(OuterOptimizer):
    """Steps along the signs of a running mean.

    Attributes:
        momentum: decay of the mean.
    """

    kind: ClassVar[str] = "signum"
    momentum: float = 0.9

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return Signs(groups, self.outer_lr, momentum=self.momentum)


class Polynomial(Schedule):
    kind: ClassVar[str] = "polynomial"
    power: float = 1.0

    def rate(self, outer_lr: float, step: int, num_steps: int, first: int) -> float:
        return float(outer_lr * (1 - (step - first) / max(1, num_steps - first)) ** self.power)


class Negative(Schedule):
    kind: ClassVar[str] = "negative"

    def rate(self, outer_lr: float, step: int, num_steps: int, first: int) -> float:
        return outer_lr * (4 - step)
