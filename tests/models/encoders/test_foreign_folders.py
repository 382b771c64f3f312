"""Folders of encoders as other tools leave them: read right, or refused with what would be right."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from metaray.data.encoder_folder import read_tokenizer
from metaray.errors import InputError
from metaray.models import Encoder
from metaray.models.encoders import OwnModule
from metaray.models.encoders.fitting import unwrapped
from tests.models.encoders.tiny import CONFIG, bert_folder, weights
from tests.models.encoders.tiny_images import VIT_CONFIG, resnet_weights, vit_weights, written

TOKENS = {"tokens": torch.tensor([[2, 4, 7, 3, 0], [2, 5, 6, 9, 3]]), "mask": torch.tensor([[1, 1, 1, 1, 0], [1] * 5])}
IMAGES = torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 90868376\n"


class Net(nn.Module):
    """It calls its layer as wrappers do."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(2, 3)


def read(folder: object, **fields: Any) -> Encoder:
    return Encoder.parse({"path": str(folder), **fields}, where="model")


def vectors(folder: object) -> Tensor:
    encoder = read(folder)
    x: Any = {**TOKENS, "mask": TOKENS["mask"].bool()} if encoder.architecture.kind == "bert" else IMAGES
    found: Tensor = encoder.body()(x).detach()
    return found


def named(tensors: dict[str, Tensor], before: str, **more: Tensor) -> dict[str, Tensor]:
    return {**{before + name: tensor for name, tensor in tensors.items()}, **more}


@pytest.mark.parametrize(
    ("tensors", "config"),
    [(weights(), CONFIG), (resnet_weights(), None), (vit_weights(), VIT_CONFIG)],
    ids=["bert", "resnet", "vit"],
)
def test_what_wrappers_put_before_all_names(tensors: Any, config: Any, tmp_path: Path) -> None:
    expected = vectors(written(tmp_path / "plain", tensors, config))
    for place, before in enumerate(("module.", "_orig_mod.module.", "0.auto_model.", "backbone.")):
        assert torch.equal(vectors(written(tmp_path / str(place), named(tensors, before), config)), expected)
    with pytest.raises(InputError):  # of some names alone it is a name
        some = {("module." if place else "") + name: tensor for place, (name, tensor) in enumerate(tensors.items())}
        vectors(written(tmp_path / "some", some, config))
    assert [*unwrapped([])] == [[]] and [*unwrapped(["model.model.a", "model.b"])][1:] == [["model.a", "b"]]


def test_a_module_of_ones_own_may_be_called_so(tmp_path: Path) -> None:
    own = OwnModule(path=f"{__name__}:Net", width=3)
    tensors = {"model.weight": torch.randn(3, 2), "model.bias": torch.zeros(3)}
    for place, before in enumerate(("", "module.", "module.model.")):
        path = tmp_path / f"{place}.safetensors"
        save_file(named(tensors, before), path)
        body = Encoder(path=str(path), architecture=own).body()
        assert torch.equal(body.get_parameter("module.model.weight"), tensors["model.weight"])


def test_heads_of_the_tasks_that_it_was_trained_on(tmp_path: Path) -> None:
    expected = vectors(bert_folder(tmp_path / "plain"))
    heads = {"classifier.weight": torch.zeros(3, 8), "qa_outputs.bias": torch.zeros(2), "bert.pooler.x": torch.zeros(2)}
    tuned = written(tmp_path / "tuned", named(weights(), "bert.", **heads), CONFIG)
    assert torch.equal(vectors(tuned), expected)
    other = written(tmp_path / "other", named(weights(), "bert.", linear=torch.zeros(3, 8)), CONFIG)
    with pytest.raises(InputError, match="hold linear .1., which it has no use for"):
        vectors(other)


def test_numbers_that_make_every_vector_nan(tmp_path: Path) -> None:
    broken = weights()
    broken["encoder.layer.1.output.dense.bias"][3] = float("inf")
    with pytest.raises(InputError, match="encoder.layer.1.output.dense.bias holds values that are no finite numbers"):
        vectors(written(tmp_path / "bert", broken, CONFIG))
    with pytest.raises(InputError, match="embeddings.LayerNorm.bias holds values that are no finite numbers"):
        vectors(
            written(tmp_path / "wide", {name: tensor.double() * 1e300 for name, tensor in weights().items()}, CONFIG)
        )
    below = {name: -tensor if name.endswith("running_var") else tensor for name, tensor in resnet_weights().items()}
    with pytest.raises(InputError, match="running_var holds variances below zero"):
        vectors(written(tmp_path / "resnet", below, None))


def test_a_decoder_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is_decoder: tokens that see only those before them"):
        read(bert_folder(tmp_path / "bert", config={**CONFIG, "is_decoder": True}))


@pytest.mark.parametrize(
    ("modes", "parts", "said"),
    [
        (("cls_token",), ("Transformer", "Pooling", "Normalize"), "cls"),
        (("mean_tokens",), ("Transformer", "Pooling"), "mean"),
        (
            ("max_tokens",),
            ("Transformer", "Pooling"),
            "1_Pooling/config.json: max_tokens can't be computed; pooling='mean'",
        ),
        (("cls_token", "mean_tokens"), (), "cls_token and mean_tokens can't be computed"),
        (("cls_token",), ("Transformer", "Pooling", "Dense"), "modules.json: Dense can't be computed"),
    ],
)
def test_the_pooling_of_sentence_transformers(
    modes: tuple[str, ...], parts: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    folder = Path(bert_folder(tmp_path / "bert"))
    (folder / "1_Pooling").mkdir()
    known = ("cls_token", "mean_tokens", "max_tokens")
    tree = {"word_embedding_dimension": 8, **{f"pooling_mode_{one}": one in modes for one in known}}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(tree))
    listed = [{"idx": i, "type": f"sentence_transformers.models.{kind}"} for i, kind in enumerate(parts)]
    (folder / "modules.json").write_text(json.dumps(listed))
    if said in ("cls", "mean"):
        assert read(folder).pooling == said and read(folder, pooling="mean").pooling == "mean"
        return
    with pytest.raises(InputError, match=said):
        read(folder)
    assert read(folder, pooling="cls").pooling == "cls", "asked for, it is what the encoder gives"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pytorch_model.bin", r"but pytorch_model.bin: .*save_file\(torch.load"),
        ("model.safetensors.index.json", "but model.safetensors.index.json: .* all parts into one"),
        ("model.safetensors.gz", "but model.safetensors.gz: unpack it"),
        ("model.fp16.safetensors", "but model.fp16.safetensors: .* give the path of the file itself"),
        ("tf_model.h5", "but tf_model.h5: weights are read from safetensors alone"),
    ],
)
def test_what_lies_in_the_place_of_weights(name: str, said: str, tmp_path: Path) -> None:
    folder = Path(bert_folder(tmp_path / "bert"))
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(InputError, match=f"no model.safetensors, {said}"):
        read(folder)


def test_files_that_are_not_what_they_are_called(tmp_path: Path) -> None:
    folder = Path(bert_folder(tmp_path / "bert"))
    file, whole = folder / "model.safetensors", (folder / "model.safetensors").read_bytes()
    for content, said in (
        (POINTER, "pointer of Git LFS"),
        (gzip.compress(whole), "packed by gzip"),
        (b"<!DOC", "web page"),
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=f"no whole file of safetensors, .*: it is a?.*{said}"):
            read(folder)
    (folder / "tokenizer.json").write_bytes(POINTER)
    with pytest.raises(InputError, match="tokenizer.json: no tokenizer: it is a pointer of Git LFS"):
        read_tokenizer(str(folder))
    (folder / "tokenizer.json").rename(folder / "vocab.txt")
    with pytest.raises(InputError, match="no such tokenizer, but vocab.txt: .*save_pretrained"):
        read_tokenizer(str(folder))
    (tmp_path / "bert.zip").write_bytes(b"PK\3\4")
    with pytest.raises(InputError, match="bert.zip: a file that does not end in .safetensors: unpack it"):
        read(tmp_path / "bert.zip")
    with pytest.raises(InputError, match="no folder 'people/encoder', and a name on a hub is no path"):
        read("people/encoder")
