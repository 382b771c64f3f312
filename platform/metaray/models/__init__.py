"""Backbones. `MODELS` is the explicit dict of them."""

from metaray.models.conv4 import Conv4
from metaray.models.custom import Custom
from metaray.models.encoders import Encoder
from metaray.models.linear_map import LinearMap
from metaray.models.lora import WRAPPED, LoRA
from metaray.models.mlp import MLP
from metaray.models.model import Model
from metaray.models.r2d2_net import R2D2Net
from metaray.models.resnet12 import ResNet12
from metaray.models.table_mlp import TableMLP

MODELS: dict[str, type[Model]] = {
    "mlp": MLP,
    "conv4": Conv4,
    "r2d2_net": R2D2Net,
    "resnet12": ResNet12,
    "table_mlp": TableMLP,
    "linear_map": LinearMap,
    "encoder": Encoder,
    "lora": LoRA,
    "custom": Custom,
}
WRAPPED.update({kind: model for kind, model in MODELS.items() if model is not LoRA})

__all__ = [
    "MLP",
    "MODELS",
    "Conv4",
    "Custom",
    "Encoder",
    "LinearMap",
    "LoRA",
    "Model",
    "R2D2Net",
    "ResNet12",
    "TableMLP",
]
