"""Text encoders of the BERT family, in arithmetic that can be differentiated twice and mapped over by `torch.vmap`.

Devlin, Chang, Lee and Toutanova ("BERT: Pre-training of deep bidirectional transformers for language understanding",
NAACL 2019, arXiv:1810.04805); each layer is, with the norms after the sums (Vaswani et al., NeurIPS 2017, section 3.1):

    a = softmax(q k' / sqrt(width / heads) + mask) v,    x = norm(x + W a),    x = norm(x + W2 act(W1 x))

Attention is written out, see `metaray.models.encoders.attention`. Departure: no dropout.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from metaray.data.preprocessing import Preprocessing
from metaray.errors import InputError
from metaray.models.encoders.architecture import MOST_LAYERS, MOST_NUMBERS, MOST_WIDE, Architecture, Pooling
from metaray.models.encoders.attention import ACTIVATIONS, Activation, attended
from metaray.models.encoders.pooling import pooled
from metaray.models.encoders.unfilled import Embedding, Linear
from metaray.models.encoders.vocabulary import check_vocabulary

SHIFTED = ("roberta", "xlm-roberta", "camembert")
"""Kinds of model whose first position comes after that of the padding; otherwise they are the same."""
NAMES = (
    (r"embeddings\.word_embeddings\.", "words."),
    (r"embeddings\.position_embeddings\.", "places."),
    (r"embeddings\.token_type_embeddings\.", "segments."),
    (r"embeddings\.LayerNorm\.", "norm."),
    (r"encoder\.layer\.(\d+)\.attention\.self\.(query|key|value)\.", r"layers.\1.\2."),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"layers.\1.joined."),
    (r"encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.", r"layers.\1.joined_norm."),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.", r"layers.\1.wide."),
    (r"encoder\.layer\.(\d+)\.output\.dense\.", r"layers.\1.narrow."),
    (r"encoder\.layer\.(\d+)\.output\.LayerNorm\.", r"layers.\1.norm."),
)
"""Names of a layer's tensors in usual files of weights, and in this module."""
HEADS = ("pooler.", "cls.", "lm_head.", "classifier.", "qa_outputs.")
UNUSED = (*HEADS, "embeddings.position_ids", "embeddings.token_type_ids")
"""Heads of the tasks that the encoder was trained on, and numbers that say nothing."""


class Bert(Architecture):
    """The architecture of a text encoder of the BERT family.

    Attributes:
        vocabulary: Size of the vocabulary.
        width: Width of the hidden vectors.
        layers: Number of layers.
        heads: Number of attention heads in each layer.
        wide: Width inside the feed-forward layers.
        places: Number of position embeddings.
        segments: Number of segment embeddings; all tokens belong to the first segment.
        first_place: Index of the first position of a text.
        activation: Activation function of the feed-forward layers.
        eps: Number that layer norms add to the variance.
    """

    kind: ClassVar[str] = "bert"

    vocabulary: int = Field(gt=0, le=MOST_NUMBERS)
    width: int = Field(gt=0, le=MOST_WIDE)
    layers: int = Field(gt=0, le=MOST_LAYERS)
    heads: int = Field(gt=0, le=MOST_WIDE)
    wide: int = Field(gt=0, le=MOST_WIDE)
    places: int = Field(gt=0, le=MOST_NUMBERS)
    segments: int = Field(default=2, gt=0, le=MOST_NUMBERS)
    first_place: int = Field(default=0, ge=0)
    activation: Activation = "gelu"
    eps: float = Field(default=1e-12, gt=0)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} is not divided by {self.heads} heads")
        if self.longest < 1:
            raise ValueError(f"{self.places} places, the first of which is {self.first_place}, take no text")
        return self

    @classmethod
    def read(
        cls,
        configuration: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        preparation: Mapping[str, Any] | None = None,
    ) -> Self | None:
        """See `Architecture.read`."""
        kind = configuration.get("model_type")
        if kind not in ("bert", *SHIFTED):
            return None
        if (places := configuration.get("position_embedding_type") or "absolute") != "absolute":
            raise InputError(f"config.json: places are told by {places!r}, but only 'absolute' can be computed")
        if configuration.get("is_decoder"):
            raise InputError("config.json: is_decoder: tokens that see only those before them can't be computed")
        names = {
            "vocabulary": "vocab_size",
            "width": "hidden_size",
            "layers": "num_hidden_layers",
            "heads": "num_attention_heads",
            "wide": "intermediate_size",
            "places": "max_position_embeddings",
            "segments": "type_vocab_size",
            "activation": "hidden_act",
            "eps": "layer_norm_eps",
        }
        if missing := [theirs for ours, theirs in names.items() if ours != "eps" and theirs not in configuration]:
            raise InputError(f"config.json lacks {', '.join(missing)}")
        fields = {ours: configuration[theirs] for ours, theirs in names.items() if theirs in configuration}
        padding = configuration.get("pad_token_id", 1)
        if kind in SHIFTED and type(padding) is not int:
            raise InputError(f"config.json: pad_token_id is {padding!r}, but the first place comes after that number")
        first = padding + 1 if kind in SHIFTED else 0
        return cls.parse({**fields, "first_place": first}, where="config.json")

    @property
    def size(self) -> int:
        """See `Architecture.size`."""
        return self.width

    @property
    def longest(self) -> int:
        """Tokens that a text may have."""
        return self.places - self.first_place

    def build(self, pooling: Pooling, normalized: bool, preprocessing: Preprocessing | None = None) -> nn.Module:
        """See `Architecture.build`."""
        return BertNetwork(self, pooling, normalized)

    def own_names(self, name: str) -> tuple[str, ...]:
        """See `Architecture.own_names`."""
        name = re.sub(r"^(bert|roberta|model)\.", "", name)
        if name.startswith(UNUSED):
            return ()
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        for theirs, ours in NAMES:
            found, count = re.subn(f"^{theirs}", ours, name)
            if count:
                return (found,)
        return (name,)

    def check(self, preprocessing: Preprocessing) -> None:
        """See `Architecture.check`."""
        check_vocabulary(preprocessing, self.vocabulary, self.longest)


class BertNetwork(nn.Module):
    """The encoder: a dict of `tokens` [n, L] and `mask` [n, L] to [n, width]."""

    def __init__(self, shape: Bert, pooling: Pooling, normalized: bool) -> None:
        super().__init__()
        self.words, self.places = Embedding(shape.vocabulary, shape.width), Embedding(shape.places, shape.width)
        self.segments, self.norm = Embedding(shape.segments, shape.width), nn.LayerNorm(shape.width, shape.eps)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))
        self.first_place, self.pooling, self.normalized = shape.first_place, pooling, normalized

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        """See the class."""
        tokens, mask = x["tokens"], x["mask"]
        places = self.places.weight[self.first_place : self.first_place + tokens.shape[1]]
        hidden = self.norm(self.words(tokens) + self.segments.weight[0] + places)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return pooled(hidden, mask, self.pooling, normalized=self.normalized)


class _Layer(nn.Module):
    """Attention and the feed-forward part."""

    def __init__(self, shape: Bert) -> None:
        super().__init__()
        self.query, self.key, self.value, self.joined = (Linear(shape.width, shape.width) for _ in range(4))
        self.joined_norm, self.norm = (nn.LayerNorm(shape.width, shape.eps) for _ in range(2))
        self.wide, self.narrow = Linear(shape.width, shape.wide), Linear(shape.wide, shape.width)
        self.heads, self.activation = shape.heads, ACTIVATIONS[shape.activation]

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[n, L, width] and [n, L] to [n, L, width]."""
        x = self.joined_norm(x + self.joined(attended(self.query(x), self.key(x), self.value(x), self.heads, mask)))
        found: Tensor = self.norm(x + self.narrow(self.activation(self.wide(x))))
        return found
