"""Tiny random encoders, as folders like those that people have."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from metaray.models.encoders import Bert

TEXT = "play a song music the band album my account balance money transfer card rain sun snow wind please now"
WORDS = TEXT.split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SHAPE = Bert(vocabulary=len(SPECIAL) + len(WORDS), width=8, layers=2, heads=2, wide=12, places=16)
CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": SHAPE.vocabulary,
    "hidden_size": SHAPE.width,
    "num_hidden_layers": SHAPE.layers,
    "num_attention_heads": SHAPE.heads,
    "intermediate_size": SHAPE.wide,
    "max_position_embeddings": SHAPE.places,
    "type_vocab_size": SHAPE.segments,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
THEIRS = {
    "words": "embeddings.word_embeddings",
    "places": "embeddings.position_embeddings",
    "segments": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "joined": "attention.output.dense",
    "joined_norm": "attention.output.LayerNorm",
    "wide": "intermediate.dense",
    "narrow": "output.dense",
}


def tokenizer(words: list[str] = WORDS, *, special: bool = True) -> str:
    """The text of a tokenizer.json: words between spaces, in small letters, [CLS] and [SEP] around them."""
    names = [*SPECIAL, *words]
    around = [{"SpecialToken": {"id": name, "type_id": 0}} for name in ("[CLS]", "[SEP]")]
    template = {
        "type": "TemplateProcessing",
        "single": [around[0], {"Sequence": {"id": "A", "type_id": 0}}, around[1]],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [names.index(name)], "tokens": [name]} for name in SPECIAL[2:]},
    }
    tree: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": template if special else None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {name: place for place, name in enumerate(names)},
            "unk_token": "[UNK]",
        },
    }
    return json.dumps(tree)


def filled(network: nn.Module, seed: int = 0) -> nn.Module:
    """A network with random weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return network


def their_name(name: str) -> str:
    """What files call a parameter of `BertNetwork`."""
    if name.startswith("layers."):
        _, layer, part, kind = name.split(".")
        theirs = "output.LayerNorm" if part == "norm" else THEIRS[part]
        return f"encoder.layer.{layer}.{theirs}.{kind}"
    part, kind = name.split(".")
    return f"{THEIRS[part]}.{kind}"


def weights(seed: int = 0) -> dict[str, Tensor]:
    """As a file has them."""
    network = filled(SHAPE.build("mean", True), seed)
    return {their_name(name): parameter.detach().clone() for name, parameter in network.named_parameters()}


def bert_folder(
    folder: Path, *, seed: int = 0, config: dict[str, Any] = CONFIG, more: dict[str, Tensor] | None = None
) -> str:
    """A folder of an encoder of the BERT family, with further tensors."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(tokenizer())
    save_file({**weights(seed), **(more or {})}, folder / "model.safetensors")
    return str(folder)


def static_folder(folder: Path, *, width: int = 6) -> str:
    """A folder of static word embeddings."""
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(tokenizer(special=False))
    matrix = torch.randn(SHAPE.vocabulary, width, generator=torch.Generator().manual_seed(0))
    save_file({"embedding.weight": matrix}, folder / "model.safetensors")
    return str(folder)
