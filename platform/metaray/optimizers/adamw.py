"""AdamW."""

from typing import Any, ClassVar

import torch

from metaray.optimizers.classic import Classic
from metaray.optimizers.eager import eager


class AdamW(Classic):
    """AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2)."""

    kind: ClassVar[str] = "adamw"

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """See `OuterOptimizer.build`. `foreach` is off: one kernel a tensor, in a fixed order."""
        made = eager(torch.optim.AdamW)
        return made(groups, self.outer_lr, betas=self.betas, weight_decay=self.weight_decay, foreach=False)
