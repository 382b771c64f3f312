"""Layers whose weights are still to be filled in: nothing is drawn for them, which would take seconds."""

from torch import nn


class Linear(nn.Linear):
    """A linear layer of any numbers."""

    def reset_parameters(self) -> None:
        """Do nothing: the weights are filled in later."""


class Embedding(nn.Embedding):
    """An embedding whose weights are not initialised."""

    def reset_parameters(self) -> None:
        """Do nothing: the weights are filled in later."""


class Conv2d(nn.Conv2d):
    """A convolution with any numbers."""

    def reset_parameters(self) -> None:
        """Do nothing: the weights are filled in later."""
