"""Backbones. `MODELS` is the explicit dict of them."""

from metaray.models.conv4 import Conv4
from metaray.models.custom import Custom
from metaray.models.mlp import MLP
from metaray.models.model import Model

MODELS: dict[str, type[Model]] = {"mlp": MLP, "conv4": Conv4, "custom": Custom}

__all__ = ["MLP", "MODELS", "Conv4", "Custom", "Model"]
