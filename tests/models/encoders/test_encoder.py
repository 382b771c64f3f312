"""Encoders from their folders: what is read, what is refused, and that a learner needs the folder no more."""

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import metaray
from metaray import ClassStore, EpisodeSpec, Evaluation, Experiment, write_class_store
from metaray.algorithms import MAML, ProtoNet
from metaray.config import replace
from metaray.data.preprocessing import TextPreprocessing, VectorPreprocessing
from metaray.errors import InputError
from metaray.models import Encoder
from metaray.models.encoders import StaticWords
from metaray.models.model import build_seeded, trainable
from metaray.models.state import kept, tensors_sha256
from metaray.training.checks.preflight import preflight
from tests.models.encoders.tiny import CONFIG, SHAPE, bert_folder, static_folder, tokenizer, weights

TEXTS = TextPreprocessing(tokenizer=tokenizer(), longest=12)
KNOWN = [("play a song", "music"), ("the band", "music"), ("my account balance", "bank"), ("transfer money", "bank")]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return bert_folder(tmp_path / "encoder")


def built(encoder: Encoder, outputs: int | None = None, preprocessing: Any = TEXTS) -> torch.nn.Module:
    return build_seeded(encoder, (None,), outputs, seed=0, preprocessing=preprocessing)


def test_what_is_read(folder: str) -> None:
    encoder = Encoder(path=folder)
    digest = sha256(Path(folder, "model.safetensors").read_bytes()).hexdigest()
    assert encoder.architecture == SHAPE and encoder.sha256 == digest
    assert encoder.tokenizer_sha256 == sha256(tokenizer().encode()).hexdigest() == TEXTS.tokenizer_sha256
    again = Encoder.parse(json.loads(encoder.model_dump_json()), where="encoder")
    assert again == encoder == Encoder(path=f"file://{folder}").model_copy(update={"path": folder})
    assert Encoder(path=f"{folder}/model.safetensors").architecture == SHAPE


def test_its_weights_are_those_of_the_file_and_frozen(folder: str) -> None:
    network = built(Encoder(path=folder), outputs=3)
    assert [*trainable(network)] == ["head.weight", "head.bias"]
    for name, tensor in weights().items():
        assert torch.equal(kept(network)[f"body.{SHAPE.own_names(name)[0]}"], tensor)
    assert all(tensor.data_ptr() % 64 == 0 for name, tensor in kept(network).items() if tensor.numel() % 16 == 0)
    assert len(trainable(built(Encoder(path=folder, frozen=False)))) == len(weights())


def test_halves_become_float32(tmp_path: Path) -> None:
    folder = Path(bert_folder(tmp_path / "encoder"))
    save_file({name: tensor.half() for name, tensor in weights().items()}, folder / "model.safetensors")
    network = built(Encoder(path=str(folder)))
    for name, tensor in weights().items():
        assert torch.equal(kept(network)[f"body.{SHAPE.own_names(name)[0]}"], tensor.half().float())


def test_static_words(tmp_path: Path) -> None:
    encoder = Encoder(path=static_folder(tmp_path / "static"))
    assert encoder.architecture == StaticWords(vocabulary=SHAPE.vocabulary, width=6)
    prepared = TextPreprocessing(tokenizer=tokenizer(special=False), longest=500)
    x = prepared.normalize({name: torch.from_numpy(part) for name, part in prepared.read("play music").items()})
    network = built(encoder, preprocessing=prepared)
    matrix, (first, second) = network.get_parameter("body.words.weight"), x["tokens"][0, :2]
    mean = (matrix[first] + matrix[second]) / 2
    torch.testing.assert_close(network(x)[0], mean / mean.norm())


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    more = bert_folder(tmp_path / "more", more={"encoder.layer.2.extra": torch.zeros(2)})
    with pytest.raises(InputError, match=r"do not fit a bert network: they hold encoder.layer.2.extra \(1\), which"):
        built(Encoder(path=more))
    deeper = bert_folder(tmp_path / "deeper", config={**CONFIG, "num_hidden_layers": 3})
    with pytest.raises(InputError, match=r"they lack layers.2.joined.bias, .* \(16\)"):
        built(Encoder(path=deeper))
    wider = bert_folder(tmp_path / "wider", config={**CONFIG, "intermediate_size": 13})
    said = r"encoder.layer.0.intermediate.dense.\w+ has the shape \[12.*\], but layers.0.wide.\w+ .* has \[13"
    with pytest.raises(InputError, match=said):
        built(Encoder(path=wider))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_weights_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    """Also those that float32 has no numbers for."""
    name = "encoder.layer.1.output.dense.bias"
    damaged = weights()[name].double()
    damaged[3] = value
    folder = bert_folder(tmp_path / "damaged", more={name: damaged})
    with pytest.raises(InputError, match=rf"damaged: {name} holds values that are no finite.* \(1 of 8\)"):
        built(Encoder(path=folder))


def test_what_is_no_encoder(tmp_path: Path, folder: str) -> None:
    with pytest.raises(InputError, match="path: give the folder or the file of the pretrained weights"):
        Encoder.parse({}, where="model")
    with pytest.raises(InputError, match=r"nowhere/model.safetensors: no such file of weights"):
        Encoder.parse({"path": str(tmp_path / "nowhere")}, where="model")
    with pytest.raises(InputError, match="read from safetensors alone"):
        Encoder.parse({"path": "weights.bin"}, where="model")
    Path(folder, "model.safetensors").write_bytes(b"PK\3\4 no safetensors at all")
    with pytest.raises(InputError, match="no whole file of safetensors"):
        Encoder.parse({"path": folder}, where="model")
    other = bert_folder(tmp_path / "other", config={"model_type": "gpt2"})
    with pytest.raises(InputError, match="model_type 'gpt2', and the weights hold 37 tensors; known are"):
        Encoder.parse({"path": other}, where="model")
    with pytest.raises(InputError, match="unknown scheme of 'ftp://there/bert' 'ftp'"):
        Encoder.parse({"path": "ftp://there/bert"}, where="model")


def test_another_digest(tmp_path: Path, folder: str) -> None:
    encoder, other = Encoder(path=folder), Path(bert_folder(tmp_path / "other", seed=1))
    built(encoder)
    with pytest.raises(InputError, match=f"its SHA-256 is [0-9a-f]{{64}}, but {encoder.sha256} is asked for"):
        Encoder.parse({"path": str(other), "sha256": encoder.sha256}, where="model")
    assert Encoder.parse({"path": folder, "sha256": encoder.sha256.upper()}, where="model") == encoder
    for given in (encoder.sha256[:12], encoder.sha256 + "0", "x" * 64):
        with pytest.raises(InputError, match="sha256: give all 64 hexadecimal digits of it, or none"):
            Encoder.parse({"path": folder, "sha256": given}, where="model")
    shutil.copy(other / "model.safetensors", Path(folder, "model.safetensors"))
    with pytest.raises(InputError, match=f"but {encoder.sha256} is asked for: these are other weights"):
        built(encoder)


def test_other_inputs(tmp_path: Path, folder: str) -> None:
    encoder = Encoder(path=folder)
    with pytest.raises(InputError, match=r"takes tokens of texts, but the source's preprocessing is 'vector'"):
        built(encoder, preprocessing=VectorPreprocessing(size=3))
    with pytest.raises(InputError, match="it takes the inputs that its weights are for"):
        built(encoder, preprocessing=None)
    more = TextPreprocessing(tokenizer=tokenizer([*"abcdefghijklmnopqrstuvwxyz"]), longest=8)
    with pytest.raises(InputError, match=f"knows {SHAPE.vocabulary} tokens, but the source's tokenizer makes 30"):
        built(encoder, preprocessing=more)
    with pytest.raises(InputError, match="takes 16 tokens a text, but the source has up to 99"):
        built(encoder, preprocessing=replace(TEXTS, longest=99))
    fewer = TextPreprocessing(tokenizer=tokenizer(["song"]), longest=8)
    with pytest.raises(InputError, match=f"SHA-256 {encoder.tokenizer_sha256}, that of the source's texts"):
        built(encoder, preprocessing=fewer)


def experiment(path: str, encoder: Encoder, **changes: Any) -> Experiment:
    words = {"a": "play song band", "b": "rain sun snow", "c": "money card account", "d": "music album my"}
    examples = {
        f"{split}{name}": [f"{split} {one} {other} please" for one in text.split() for other in text.split()]
        for split in ("now", "wind", "the")
        for name, text in words.items()
    }
    parts = zip(("meta-train", "meta-val", "meta-test"), ("now", "wind", "the"), strict=True)
    splits: Any = {split: [name for name in examples if name.startswith(begin)] for split, begin in parts}
    write_class_store(path, examples, splits, TEXTS)
    fields: dict[str, Any] = {
        "name": "encoded",
        "source": ClassStore(path=path),
        "episodes": EpisodeSpec(ways=2, shots=2, queries=2),
        "model": encoder,
        "algorithm": MAML(inner_lr=0.5),
        "meta_batch_size": 2,
        "num_steps": 4,
        "evaluation": Evaluation(every=2, val_episodes=8, test_episodes=8),
    }
    return Experiment(**fields | changes)


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "trained"])
def test_a_learner_needs_no_folder(
    frozen: bool, folder: str, train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = train(experiment(str(tmp_path / "texts.arrow"), Encoder(path=folder, frozen=frozen)), register=False)
    learner = told.learner
    assert (learner.meta.keys() == {"head.weight", "head.bias"}) is frozen
    texts, labels = zip(*KNOWN, strict=True)
    expected = learner.adapt(texts, labels).predict_proba(["an album of the band", "my card"])
    learner.save(tmp_path / "learner")
    shutil.rmtree(folder)
    monkeypatch.setenv("METARAY_CACHE", str(tmp_path / "another node"))
    again = metaray.load(str(tmp_path / "learner"))
    assert isinstance(again.model, Encoder) and again.model.path == ""
    found = again.adapt(texts, labels).predict_proba(["an album of the band", "my card"])
    assert np.array_equal(found, expected)
    files = {path.name: path.stat().st_size for path in (tmp_path / "learner").iterdir()}
    assert ("state.safetensors" in files) is frozen
    if frozen:
        held = tensors_sha256(kept(again.network))
        assert files["parameters.safetensors"] < 500 and held == tensors_sha256(again.state)


def test_only_a_learner_has_no_path(folder: str, tmp_path: Path) -> None:
    good = experiment(str(tmp_path / "texts.arrow"), Encoder(path=folder))
    preflight(good)
    assert Experiment.from_json(good.to_json()) == good
    with pytest.raises(InputError, match="nothing to train; every parameter of the network is frozen"):
        preflight(replace(good, algorithm=ProtoNet()))
    with pytest.raises(InputError, match="it has no path to read its weights from"):
        replace(good, model=good.model.held)
