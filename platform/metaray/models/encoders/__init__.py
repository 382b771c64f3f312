"""Pretrained encoders: one file an architecture, and the model that reads their weights. `ARCHITECTURES` is all."""

from metaray.models.encoders.architecture import Architecture, Pooling
from metaray.models.encoders.bert import Bert
from metaray.models.encoders.encoder import ARCHITECTURES, Encoder
from metaray.models.encoders.static_words import StaticWords

__all__ = ["ARCHITECTURES", "Architecture", "Bert", "Encoder", "Pooling", "StaticWords"]
