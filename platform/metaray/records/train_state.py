"""What a run is at a step: all that a checkpoint holds of training itself."""

from dataclasses import dataclass

import torch
from torch import nn

from metaray.algorithms.context import Tensors


@dataclass
class TrainState:
    """Everything that the next outer step depends on, besides the experiment.

    Attributes:
        network: Network of the right architecture, whose own trainable weights are never used.
        meta: Meta-parameters, leaf tensors that require gradients, updated in place.
        optimizer: Torch optimiser over the meta-parameters; None if there is nothing to train.
        step: Next outer step.
    """

    network: nn.Module
    meta: Tensors
    optimizer: torch.optim.Optimizer | None
    step: int = 0
