"""Pretrained encoders: one file an architecture, and the model that reads their weights. `ARCHITECTURES` is all."""

from metaray.models.encoders.architecture import Architecture, Pooling
from metaray.models.encoders.bert import Bert
from metaray.models.encoders.encoder import ARCHITECTURES, Encoder
from metaray.models.encoders.own_module import OwnModule
from metaray.models.encoders.resnet import ResNet
from metaray.models.encoders.sight import Sight
from metaray.models.encoders.static_words import StaticWords
from metaray.models.encoders.vit import ViT

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Bert",
    "Encoder",
    "OwnModule",
    "Pooling",
    "ResNet",
    "Sight",
    "StaticWords",
    "ViT",
]
