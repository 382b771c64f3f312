"""Stochastic gradient descent."""

from typing import Any, ClassVar, Self

import torch
from pydantic import model_validator

from metaray.optimizers.classic import Classic
from metaray.optimizers.eager import eager


class SGD(Classic):
    """Stochastic gradient descent, with momentum, Nesterov's or the heavy ball's, and an L2 penalty."""

    kind: ClassVar[str] = "sgd"

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: Nesterov's momentum needs a momentum above 0 (got 0)")
        return self

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """See `OuterOptimizer.build`. `foreach` is off: one kernel a tensor, in a fixed order."""
        return eager(torch.optim.SGD)(
            groups,
            self.outer_lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            foreach=False,
        )
