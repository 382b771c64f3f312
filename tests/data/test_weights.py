"""Files of weights in the cache: fetched once, known by their digests, laid where kernels like them."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from metaray.data import weights
from metaray.data.encoder_folder import EncoderFolder, read_tokenizer
from metaray.data.weights import beside, held_weights, shapes_in
from metaray.errors import InputError
from tests.data.small_server import SmallServer, small_server, without_proxies

TENSORS = {"a": torch.arange(3.0), "b": torch.arange(32, dtype=torch.bfloat16), "c": torch.arange(5)}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METARAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def server(file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallServer]:
    with small_server() as served:
        without_proxies(monkeypatch, served)
        served.objects |= {"/bert/model.safetensors": file.read_bytes(), "/bert/tokenizer.json": b"{}"}
        yield served


def digest(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()


def test_laid_anew(file: Path, cache: Path) -> None:
    found = held_weights(str(file))
    assert found == (cache / f"{digest(file)}.safetensors", digest(file))
    with safe_open(found.path, "pt") as held:
        tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118
    assert tensors.keys() == TENSORS.keys() and tensors["b"].dtype == torch.float32
    assert all(torch.equal(tensors[name], tensor.to(tensors[name].dtype)) for name, tensor in TENSORS.items())
    assert tensors["b"].data_ptr() % 64 == 0
    assert shapes_in(found.path) == {"a": (3,), "b": (32,), "c": (5,)}
    assert held_weights(str(file), digest(file)) == found
    assert {path.suffix for path in cache.iterdir()} <= {".safetensors", ".lock", ".json", ".use", ".seal"}


def test_a_file_that_changes_is_seen(file: Path, cache: Path) -> None:
    before = held_weights(str(file)).sha256
    save_file({"a": torch.ones(3)}, file)
    after = held_weights(str(file)).sha256
    assert after == digest(file) != before
    with pytest.raises(InputError, match=f"its SHA-256 is {after}, but {before} is asked for"):
        held_weights(str(file), before)


def test_fetched_once(server: SmallServer, file: Path, cache: Path) -> None:
    folder = EncoderFolder(f"{server.address}/bert")
    found = folder.weights()
    assert found.sha256 == digest(file) and folder.tokenizer() == "{}" and folder.configuration() == {}
    server.objects.clear()
    assert folder.weights(digest(file)) == found
    with pytest.raises(InputError, match="no such object"):
        folder.weights()
    assert beside(f"{server.address}/bert/tokenizer.json") is None


def test_what_is_fetched_must_have_the_digest(server: SmallServer, file: Path, cache: Path) -> None:
    with pytest.raises(InputError, match=f"bert/model.safetensors: its SHA-256 is {digest(file)}, but {'0' * 64} is"):
        EncoderFolder(f"{server.address}/bert").weights("0" * 64)
    assert not list(cache.glob("*.safetensors")) and not list(cache.glob("*.part"))


def test_what_is_damaged(file: Path, cache: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"model.safetensors: no whole file of safetensors"):
        held_weights(str(file))
    assert not list(cache.glob("*.safetensors")) and not list(cache.glob("*.part"))
    with pytest.raises(InputError, match="no such file of weights \\(it is a folder\\)"):
        held_weights(str(file.parent))


def test_a_file_that_changes_while_it_is_read(file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the cache would hold other weights under the digest of the first."""
    lay = weights._lay_anew

    def changed(path: Path, where: str, target: Any) -> None:
        save_file({"a": torch.ones(3)}, path)
        lay(path, where, target)

    monkeypatch.setattr(weights, "_lay_anew", changed)
    with pytest.raises(InputError, match=r"model.safetensors: changes while it is read"):
        held_weights(str(file))
    assert not list(cache.glob("*.safetensors")) and not list(cache.glob("*.part"))


def test_names_that_no_file_can_have(cache: Path) -> None:
    for path in ("a" * 5000, "a" * 5000 + ".safetensors"):
        with pytest.raises(InputError, match="can't be read: File name too long"):
            EncoderFolder(path).weights()


@pytest.mark.parametrize(
    ("path", "weights", "config"),
    [
        ("bert", "bert/model.safetensors", "bert/config.json"),
        ("bert/other.safetensors", "bert/other.safetensors", "bert/config.json"),
        ("s3://bucket/bert/", "s3://bucket/bert/model.safetensors", "s3://bucket/bert/config.json"),
        ("https://a.b/c/w.safetensors?v=1", "https://a.b/c/w.safetensors?v=1", "https://a.b/c/config.json?v=1"),
    ],
)
def test_where_the_files_lie(path: str, weights: str, config: str) -> None:
    folder = EncoderFolder(path)
    assert (folder.weights_uri, folder.uri("config.json")) == (weights, config)


def test_tokenizers(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"a": 1}')
    (tmp_path / "broken.json").write_bytes(b"\xff")
    assert read_tokenizer(str(tmp_path)) == read_tokenizer(str(tmp_path / "tokenizer.json")) == '{"a": 1}'
    with pytest.raises(InputError, match=r"broken.json: not a text in UTF-8"):
        read_tokenizer(str(tmp_path / "broken.json"))
    with pytest.raises(InputError, match=r"nowhere/tokenizer.json: no such tokenizer; .*nowhere does not exist"):
        read_tokenizer(str(tmp_path / "nowhere"))
