"""Adam."""

from typing import Any, ClassVar

import torch

from metaray.optimizers.classic import Classic
from metaray.optimizers.eager import eager


class Adam(Classic):
    """Adam (Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015), with an L2 penalty."""

    kind: ClassVar[str] = "adam"

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """See `OuterOptimizer.build`. `foreach` is off: one kernel a tensor, in a fixed order."""
        made = eager(torch.optim.Adam)
        return made(groups, self.outer_lr, betas=self.betas, weight_decay=self.weight_decay, foreach=False)
