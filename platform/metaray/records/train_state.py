"""What a run is at a step: all that a checkpoint holds of training itself."""

from dataclasses import dataclass

import torch
from torch import nn

from metaray.algorithms.context import Tensors


@dataclass
class TrainState:
    """Everything that the next step depends on, besides the experiment.

    Attributes:
        network: The architecture; its own weights are never used.
        meta: The meta-parameters, leaves that require gradient, updated in place.
        optimizer: Optimiser over `meta`'s tensors; None where there is nothing to train.
        step: The next step.
    """

    network: nn.Module
    meta: Tensors
    optimizer: torch.optim.Optimizer | None
    step: int = 0
