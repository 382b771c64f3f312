"""AdamW."""

from typing import Any, ClassVar

import torch

from metaray.optimizers.classic import Classic


class AdamW(Classic):
    """AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2)."""

    kind: ClassVar[str] = "adamw"

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """See `OuterOptimizer.build`. `foreach` is off: one kernel a tensor, in a fixed order."""
        return torch.optim.AdamW(groups, self.outer_lr, betas=self.betas, weight_decay=self.weight_decay, foreach=False)
