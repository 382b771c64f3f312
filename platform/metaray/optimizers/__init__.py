"""Optimisers of the outer loop, one file each. `OPTIMIZERS` is the explicit dict of them."""

from metaray.optimizers.adam import Adam
from metaray.optimizers.adamw import AdamW
from metaray.optimizers.custom import CustomOptimizer
from metaray.optimizers.groups import Group
from metaray.optimizers.outer_optimizer import OuterOptimizer
from metaray.optimizers.sgd import SGD

OPTIMIZERS: dict[str, type[OuterOptimizer]] = {
    "adam": Adam,
    "adamw": AdamW,
    "sgd": SGD,
    "custom": CustomOptimizer,
}

__all__ = ["OPTIMIZERS", "SGD", "Adam", "AdamW", "CustomOptimizer", "Group", "OuterOptimizer"]
