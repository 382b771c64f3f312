"""Encoders that lie once in a storage, for all learners that have them: written once, checked, and not done without."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metaray
from metaray import Experiment
from metaray.algorithms import MAML, ProtoNet
from metaray.api.train import train as train_run
from metaray.errors import InputError
from metaray.learners.encoder_link import EncoderLink
from metaray.learners.learner import Learner
from metaray.manifest import sealed
from metaray.models import Encoder
from metaray.models.encoders.embedding import embed_store
from metaray.records.blobs import linked
from metaray.records.storage import Storage
from tests.data.small_server import small_server, without_proxies
from tests.models.encoders.test_embedded_stores import experiment as on_vectors
from tests.models.encoders.test_encoder import experiment as on_texts
from tests.models.encoders.tiny import bert_folder

KNOWN, LABELS = ["play rain", "song sun", "money now", "card wind"], ["a", "a", "b", "b"]
ASKED = ["play wind now", "please money", "album"]


@pytest.fixture(scope="module")
def learners(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Learner]:
    """With the same encoder in the network, and before it."""
    place = tmp_path_factory.mktemp("made")

    def trained(experiment: Experiment) -> Learner:
        return train_run(experiment, storage=str(place / "runs"), tracker="none", progress=False).learner

    folder, texts, vectors = bert_folder(place / "encoder"), place / "texts.arrow", place / "vectors.arrow"
    inside = trained(on_texts(str(texts), Encoder(path=folder), algorithm=MAML(inner_lr=0.5)))
    embed_store(str(texts), Encoder(path=folder), vectors)
    before = trained(on_vectors(str(vectors), algorithm=ProtoNet()))
    shutil.rmtree(folder)
    return {"inside": inside, "before": before}


def asked(learner: Learner) -> Any:
    return learner.adapt(KNOWN, LABELS).predict_proba(ASKED)


def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """A node that has never seen the weights."""
    monkeypatch.setenv("METARAY_CACHE", str(tmp_path / name))


def test_two_learners_share_one_blob(
    learners: dict[str, Learner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, blobs = Storage(str(tmp_path / "runs")), tmp_path / "runs" / "blobs"
    for name, learner in learners.items():
        expected = asked(learner)
        learner.save(tmp_path / f"whole-{name}")
        light = linked(learner, root)
        assert np.array_equal(asked(light), expected)
        light.save(tmp_path / name)
        files = {path.name: path.stat().st_size for path in (tmp_path / name).iterdir()}
        assert "encoder.safetensors" not in files and files.get("state.safetensors", 0) < 500
        said = json.loads((tmp_path / name / "learner.json").read_text())
        assert said["format"] == 4 and said["linked"]["at"] == f"{blobs}/{said['linked']['sha256']}"
        elsewhere(monkeypatch, tmp_path, f"node-{name}")
        again = metaray.load(str(tmp_path / name))
        assert np.array_equal(asked(again), expected) and again.link == light.link
        task = again.adapt(KNOWN, LABELS)
        task.save(tmp_path / f"task-{name}")
        assert np.array_equal(metaray.load_task(str(tmp_path / f"task-{name}")).predict_proba(ASKED), expected)
    (blob,) = blobs.iterdir()
    assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    before = blob.stat().st_mtime_ns
    linked(learners["inside"], root)
    assert blob.stat().st_mtime_ns == before, "it is written once"


def test_without_its_blob(learners: dict[str, Learner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Storage(str(tmp_path / "runs"))
    light = linked(learners["before"], root)
    light.save(tmp_path / "light")
    assert light.link is not None
    digest, blob = light.link.sha256, Path(light.link.at)
    elsewhere(monkeypatch, tmp_path, "node")
    (tmp_path / "moved" / "blobs").mkdir(parents=True)
    blob.rename(tmp_path / "moved" / "blobs" / digest)
    said = f"without: the weights with the SHA-256 {digest} are neither in this node's cache .* nor at {blob}"
    with pytest.raises(InputError, match=f"{said} .*no such file of weights.* set METARAY_BLOBS to the storage"):
        metaray.load(str(tmp_path / "light"))
    monkeypatch.setenv("METARAY_BLOBS", str(tmp_path / "moved"))
    assert np.array_equal(asked(metaray.load(str(tmp_path / "light"))), asked(light))
    elsewhere(monkeypatch, tmp_path, "another node")
    other = linked(learners["before"], Storage(str(tmp_path / "other")))
    shutil.copy(bert_blob(tmp_path), tmp_path / "moved" / "blobs" / digest)
    assert other.link is not None and other.link.sha256 == digest
    with pytest.raises(InputError, match=f"its SHA-256 is [0-9a-f]{{64}}, but {digest} is asked for"):
        metaray.load(str(tmp_path / "light"))
    monkeypatch.delenv("METARAY_BLOBS")
    shutil.copy(bert_blob(tmp_path), blob)
    with pytest.raises(InputError, match=f"blobs/{digest} is damaged: its content has another SHA-256"):
        linked(learners["before"], root)


def test_from_s3(learners: dict[str, Learner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetched once by a node, whatever number of learners it loads."""
    with small_server() as served:
        without_proxies(monkeypatch, served)
        for name, learner in learners.items():
            light = linked(learner, Storage(str(tmp_path / "runs")))
            assert light.link is not None
            digest = light.link.sha256
            served.objects[f"/bucket/runs/blobs/{digest}"] = Path(light.link.at).read_bytes()
            moved = dataclasses.replace(
                light, link=EncoderLink(sha256=digest, at=Storage("s3://bucket/runs").child("blobs").child(digest).root)
            )
            moved.save(tmp_path / name)
        elsewhere(monkeypatch, tmp_path, "node")
        for name, learner in learners.items():
            assert np.array_equal(asked(metaray.load(str(tmp_path / name))), asked(learner))
        assert served.count("GET") == 1
        served.objects.clear()
        assert np.array_equal(asked(metaray.load(str(tmp_path / "before"))), asked(learners["before"]))
        elsewhere(monkeypatch, tmp_path, "another node")
        with pytest.raises(InputError, match=f"nor at s3://bucket/runs/blobs/{digest} .*no such object"):
            metaray.load(str(tmp_path / "before"))


def bert_blob(tmp_path: Path) -> Path:
    """Other weights."""
    if not (tmp_path / "others").exists():
        bert_folder(tmp_path / "others", seed=7)
    return tmp_path / "others" / "model.safetensors"


def test_what_can_not_be_linked(
    learners: dict[str, Learner], train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Encoder(path=bert_folder(tmp_path / "trained"), frozen=False)
    wanted = on_texts(str(tmp_path / "again.arrow"), trained)
    with pytest.raises(InputError, match="--link-encoder: there is nothing to link"):
        train(wanted, link_encoder=True)
    with pytest.raises(InputError, match="--link-encoder is for a registered learner: leave out --no-register"):
        train(wanted, link_encoder=True, register=False)
    learner = train(wanted, register=False).learner
    with pytest.raises(InputError, match="a trained encoder is part of the learner"):
        linked(learner, Storage(str(tmp_path / "runs")))
    light = linked(learners["before"], Storage(str(tmp_path / "runs"))).files()
    for link, said in (
        ({}, "linked: sha256 is missing; at is missing"),
        ({"sha256": "x", "at": "here"}, "linked: sha256"),
        ({"sha256": "0" * 64, "at": "ftp://x/y"}, "no learner without.*unknown scheme"),
        ([1], "linked: must be a JSON object"),
    ):
        description = {**json.loads(light["learner.json"]), "linked": link}
        files = {**light, "learner.json": json.dumps(description).encode()}
        shutil.rmtree(tmp_path / "hostile", ignore_errors=True)
        (tmp_path / "hostile").mkdir()
        for name, data in sealed({n: d for n, d in files.items() if n != "manifest.json"}).items():
            (tmp_path / "hostile" / name).write_bytes(data)
        with pytest.raises(InputError, match=said):
            metaray.load(str(tmp_path / "hostile"))
