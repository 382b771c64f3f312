"""Tiny random image encoders, as folders like those that people have, and a few images."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from metaray.models.encoders import ResNet, Sight, ViT

RESNET = ResNet(blocks=(1, 1, 1, 1), bottleneck=False, width=4, classes=5)
DEEP = ResNet(blocks=(1, 2, 1, 1), bottleneck=True, width=4)
VIT = ViT(patch=(4, 4), width=8, layers=2, heads=2, wide=12, sight=Sight(height=16, width=16))
VIT_CONFIG: dict[str, Any] = {
    "model_type": "vit",
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "image_size": 16,
    "patch_size": 4,
    "num_channels": 3,
    "qkv_bias": True,
}
PREPARATION = {"size": 16, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.5, 0.5], "resample": 3}
HUGGING_FACE = {
    "first": "embeddings.cls_token",
    "places": "embeddings.position_embeddings",
    "patches": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
    "query": "attention.attention.query",
    "key": "attention.attention.key",
    "value": "attention.attention.value",
    "joined": "attention.output.dense",
    "before": "layernorm_before",
    "after": "layernorm_after",
    "wide": "intermediate.dense",
    "narrow": "output.dense",
}


def random_tensors(like: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Numbers of the same shapes, of a size that keeps signals alive; variances are positive."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, tensor in like.items():
        numbers = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            numbers = numbers.abs() + 0.5
        elif tensor.ndim > 1 and "position" not in name:
            numbers = numbers * (2 / tensor[0].numel()) ** 0.5
        found[name] = numbers
    return found


def resnet_weights(shape: ResNet = RESNET, seed: int = 0) -> dict[str, Tensor]:
    """As a file has them, the last layer and the counts of batches among them."""
    state = shape.build("fc" if shape.classes else "mean", True).state_dict()
    found = random_tensors(state, seed)
    return found | {
        name.replace("running_mean", "num_batches_tracked"): torch.tensor(7) for name in found if "running_mean" in name
    }


def resnet_folder(
    folder: Path,
    *,
    shape: ResNet = RESNET,
    seed: int = 0,
    config: dict[str, Any] | None = None,
    preparation: dict[str, Any] | None = None,
) -> str:
    """A folder of a residual network."""
    return written(folder, resnet_weights(shape, seed), config, preparation)


def vit_weights(seed: int = 0) -> dict[str, Tensor]:
    """As Hugging Face's files have them."""
    return {
        their_name(name): tensor for name, tensor in random_tensors(VIT.build("cls", True).state_dict(), seed).items()
    }


def their_name(name: str) -> str:
    """What Hugging Face's files call a parameter of `ViTNetwork`."""
    if not name.startswith("layers."):
        part, _, kind = name.partition(".")
        return ".".join(filter(None, (HUGGING_FACE[part], kind)))
    _, layer, part, kind = name.split(".")
    return f"encoder.layer.{layer}.{HUGGING_FACE[part]}.{kind}"


def vit_folder(folder: Path, *, config: dict[str, Any] = VIT_CONFIG, preparation: dict[str, Any] | None = None) -> str:
    """A folder of a vision transformer."""
    return written(folder, vit_weights(), config, preparation)


def written(
    folder: Path, tensors: dict[str, Tensor], config: dict[str, Any] | None, preparation: dict[str, Any] | None = None
) -> str:
    """A folder of these files."""
    folder.mkdir(parents=True)
    for name, tree in (("config.json", config), ("preprocessor_config.json", preparation)):
        if tree is not None:
            (folder / name).write_text(json.dumps(tree))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return str(folder)


def pictures(count: int, side: int = 20, seed: int = 0) -> Iterator[Image.Image]:
    """Coloured noise, each of another hue."""
    generator = np.random.default_rng(seed)
    for place in range(count):
        pixels = generator.integers(0, 120, (side, side + place % 3, 3), dtype=np.uint8)
        pixels[..., place % 3] += 100
        yield Image.fromarray(pixels)


def picture_folder(folder: Path, classes: int = 9, each: int = 6) -> Path:
    """A folder a class, each class of another colour."""
    generator = np.random.default_rng(0)
    for name in range(classes):
        (folder / f"c{name}").mkdir(parents=True)
        hue = generator.integers(0, 200, 3)
        for place in range(each):
            pixels = (hue + generator.integers(0, 55, (20, 24, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"c{name}" / f"{place}.png")
    return folder
