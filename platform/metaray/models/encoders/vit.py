"""Vision transformers, in arithmetic that can be differentiated twice and mapped over by `torch.vmap`.

Dosovitskiy et al. ("An image is worth 16x16 words", ICLR 2021, arXiv:2010.11929, equations 1 to 4). An image is cut
into patches, each of which becomes a vector; a learned one, [class], stands before them; each has a vector of its place
added; and each layer is, with the norms before what they norm,

    x = x + W a(norm(x)),    x = x + W2 act(W1 norm(x))        (a: softmax(q k' / sqrt(width / heads)) v)

with one more norm at the end. Attention is written out, see `metaray.models.encoders.attention`. Departure: no dropout.
Files have the names of Hugging Face's `ViTModel`, or those of torchvision's, which hold query, key and value as one.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from metaray.data.preprocessing import Preprocessing
from metaray.errors import InputError
from metaray.models.encoders.architecture import MOST_LAYERS, MOST_WIDE, Architecture, Pooling
from metaray.models.encoders.attention import ACTIVATIONS, Activation, attended
from metaray.models.encoders.pictures import Pictures
from metaray.models.encoders.pooling import unit
from metaray.models.encoders.sight import PREPARATION, Sight
from metaray.models.encoders.unfilled import Conv2d, Linear

PARTS = (".query.", ".key.", ".value.")
NAMES = (
    (r"embeddings\.cls_token$", "first"),
    (r"embeddings\.position_embeddings$", "places"),
    (r"embeddings\.patch_embeddings\.projection\.", "patches."),
    (r"layernorm\.", "norm."),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.", r"layers.\1.\2."),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"layers.\1.joined."),
    (r"encoder\.layer\.(\d+)\.layernorm_before\.", r"layers.\1.before."),
    (r"encoder\.layer\.(\d+)\.layernorm_after\.", r"layers.\1.after."),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.", r"layers.\1.wide."),
    (r"encoder\.layer\.(\d+)\.output\.dense\.", r"layers.\1.narrow."),
    (r"class_token$", "first"),
    (r"encoder\.pos_embedding$", "places"),
    (r"conv_proj\.", "patches."),
    (r"encoder\.ln\.", "norm."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_", r"layers.\1.query."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.", r"layers.\1.joined."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.ln_1\.", r"layers.\1.before."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.ln_2\.", r"layers.\1.after."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.", r"layers.\1.wide."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.", r"layers.\1.narrow."),
)
"""Names of a layer's tensors in Hugging Face's files, in torchvision's, and in this module."""
UNUSED = ("pooler.", "classifier.", "heads.", "decoder.", "embeddings.mask_token")
"""Tensors that only the pretraining's own tasks use."""
HEADS = {768: 12, 1024: 16, 1280: 16}
"""Number of attention heads of torchvision's vit_b, vit_l and vit_h, by width, since the weights do not tell it."""


class ViT(Architecture):
    """The architecture of a vision transformer.

    Attributes:
        patch: Height and width of a patch, in pixels.
        width: Width of the hidden vectors.
        layers: Number of layers.
        heads: Number of attention heads in each layer.
        wide: Width inside the feed-forward layers.
        biased: Whether query, key and value have a bias.
        activation: Activation function of the feed-forward layers.
        eps: Number that layer norms add to the variance.
        sight: Description of the images that the network was trained on.
    """

    kind: ClassVar[str] = "vit"
    poolings: ClassVar[tuple[Pooling, ...]] = ("cls", "mean")

    patch: tuple[int, int]
    width: int = Field(gt=0, le=MOST_WIDE)
    layers: int = Field(gt=0, le=MOST_LAYERS)
    heads: int = Field(gt=0, le=MOST_WIDE)
    wide: int = Field(gt=0, le=MOST_WIDE)
    biased: bool = True
    activation: Activation = "gelu"
    eps: float = Field(default=1e-12, gt=0)
    sight: Sight

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} is not divided by {self.heads} heads")
        if self.sight.size is None:
            raise ValueError("sight: it takes images of one size: give height and width")
        if min(self.patch) < 1 or any(whole < part for whole, part in zip(self.sight.size, self.patch, strict=True)):
            raise ValueError(f"images of {self.sight.size} pixels hold no patch of {self.patch}")
        return self

    @classmethod
    def read(
        cls,
        configuration: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        preparation: Mapping[str, Any] | None = None,
    ) -> Self | None:
        """See `Architecture.read`."""
        if configuration.get("model_type") == "vit":
            fields = _of_hugging_face(configuration)
        elif {"class_token", "conv_proj.weight", "encoder.pos_embedding"} <= shapes.keys():
            fields = _of_torchvision(configuration, shapes)
        else:
            return None
        size, sight = fields.pop("size"), Sight.read(configuration, preparation or {})
        if sight.size is None:
            sight = Sight.parse({**sight.model_dump(), "height": size[0], "width": size[1]}, where="config.json")
        elif sight.size != size:
            raise InputError(f"{PREPARATION} makes images of {sight.size} pixels, but the network takes {size}")
        return cls.parse({**fields, "sight": sight}, where="config.json")

    @property
    def size(self) -> int:
        """See `Architecture.size`."""
        return self.width

    @property
    def places(self) -> int:
        """Patches of an image, and [class]."""
        assert self.sight.size is not None
        (height, width), (tall, wide) = self.sight.size, self.patch
        return 1 + (height // tall) * (width // wide)

    def build(self, pooling: Pooling, normalized: bool, preprocessing: Preprocessing | None = None) -> nn.Module:
        """See `Architecture.build`."""
        source = None if preprocessing is None else self.sight.check(preprocessing)
        return ViTNetwork(self, Pictures(self.sight, source), pooling, normalized)

    def own_names(self, name: str) -> tuple[str, ...]:
        """See `Architecture.own_names`."""
        fused = ".self_attention.in_proj_" in name
        name = re.sub(r"^vit\.", "", name)
        if name.startswith(UNUSED):
            return ()
        for theirs, ours in NAMES:
            found, count = re.subn(f"^{theirs}", ours, name)
            if count:
                return tuple(found.replace(PARTS[0], part) for part in PARTS) if fused else (found,)
        return (name,)

    @property
    def preprocessing(self) -> Preprocessing | None:
        """See `Architecture.preprocessing`."""
        return self.sight.preprocessing

    def check(self, preprocessing: Preprocessing) -> None:
        """See `Architecture.check`."""
        self.sight.check(preprocessing)


class ViTNetwork(nn.Module):
    """The encoder: normalised images of a source, [n, channels, height, width], to [n, width]."""

    def __init__(self, shape: ViT, pictures: Pictures, pooling: Pooling, normalized: bool) -> None:
        super().__init__()
        self.pictures, self.pooling, self.normalized = pictures, pooling, normalized
        self.patches = Conv2d(3, shape.width, shape.patch, stride=shape.patch)
        self.first = nn.Parameter(torch.empty(1, 1, shape.width))
        self.places = nn.Parameter(torch.empty(1, shape.places, shape.width))
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width, shape.eps)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        patches = self.patches(self.pictures(x)).flatten(2).transpose(1, 2)
        hidden = torch.cat([self.first.expand(len(patches), -1, -1), patches], dim=1) + self.places
        for layer in self.layers:
            hidden = layer(hidden)
        hidden = self.norm(hidden)
        found = hidden[:, 0] if self.pooling == "cls" else hidden[:, 1:].mean(1)
        return unit(found) if self.normalized else found


class _Layer(nn.Module):
    """Attention and the feed-forward part."""

    def __init__(self, shape: ViT) -> None:
        super().__init__()
        self.query, self.key, self.value = (Linear(shape.width, shape.width, bias=shape.biased) for _ in range(3))
        self.joined = Linear(shape.width, shape.width)
        self.before, self.after = (nn.LayerNorm(shape.width, shape.eps) for _ in range(2))
        self.wide, self.narrow = Linear(shape.width, shape.wide), Linear(shape.wide, shape.width)
        self.heads, self.activation = shape.heads, ACTIVATIONS[shape.activation]

    def forward(self, x: Tensor) -> Tensor:
        """[n, L, width] to the same shape."""
        seen = self.before(x)
        x = x + self.joined(attended(self.query(seen), self.key(seen), self.value(seen), self.heads))
        found: Tensor = x + self.narrow(self.activation(self.wide(self.after(x))))
        return found


def _of_hugging_face(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, and the size of images, as `ViTConfig` has them."""
    names = {
        "width": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "wide": "intermediate_size",
        "activation": "hidden_act",
        "eps": "layer_norm_eps",
        "biased": "qkv_bias",
    }
    needed = [*(names[one] for one in ("width", "layers", "heads", "wide")), "image_size", "patch_size"]
    if missing := [name for name in needed if name not in configuration]:
        raise InputError(f"config.json lacks {', '.join(missing)}")
    if (channels := configuration.get("num_channels", 3)) != 3:
        raise InputError(f"config.json: num_channels is {channels!r}, but only encoders of 3 can be computed")
    fields = {ours: configuration[theirs] for ours, theirs in names.items() if theirs in configuration}
    return {**fields, "size": _sides(configuration, "image_size"), "patch": _sides(configuration, "patch_size")}


def _of_torchvision(configuration: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The same, by the shapes of the weights; `config.json` need say only what they don't."""
    patches, places = shapes["conv_proj.weight"], shapes["encoder.pos_embedding"]
    if len(patches) != 4 or len(places) != 3 or patches[1] != 3:
        raise InputError(
            f"the weights are no vision transformer of 3 channels: conv_proj.weight has the shape {list(patches)}, "
            f"encoder.pos_embedding {list(places)}"
        )
    heads = configuration.get("num_attention_heads", HEADS.get(patches[0]))
    if heads is None:
        raise InputError(
            f"how many heads of attention there are at a width of {patches[0]} is not known: give num_attention_heads "
            "in a config.json beside the weights"
        )
    layers = {found[1] for name in shapes if (found := re.match(r"encoder\.layers\.encoder_layer_(\d+)\.", name))}
    inside = [shape[0] for name, shape in shapes.items() if re.search(r"_0\.mlp\.(0|linear_1)\.bias$", name) and shape]
    side = round((places[1] - 1) ** 0.5)
    size = (side * patches[2], side * patches[3])
    if "image_size" in configuration:
        size = _sides(configuration, "image_size")
    return {
        **{"width": patches[0], "layers": len(layers), "heads": heads, "wide": inside[0] if inside else 0},
        **{"patch": patches[2:], "eps": configuration.get("layer_norm_eps", 1e-6), "size": size},
    }


def _sides(configuration: Mapping[str, Any], name: str) -> tuple[int, int]:
    """(height, width) of what is given as one number or two."""
    found = configuration[name]
    sides = [found, found] if type(found) is int else found
    if not isinstance(sides, list | tuple) or len(sides) != 2 or any(type(s) is not int or s < 1 for s in sides):
        raise InputError(f"config.json: {name} must be a number of pixels, or two (got {found!r})")
    return sides[0], sides[1]
