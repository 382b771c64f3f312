"""Images the whole way: imported as an encoder takes them, trained on, registered, adapted to without its folder."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import metaray
from metaray import ClassStore, EpisodeSpec, Evaluation, Experiment
from metaray.algorithms import MAML, ProtoNet
from metaray.data.preprocessing import EncodedPreprocessing, ImagePreprocessing
from metaray.errors import InputError
from metaray.models import MLP, Encoder
from tests.models.encoders.tiny_images import PREPARATION, picture_folder, resnet_folder, vit_folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return picture_folder(tmp_path / "images")


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    return resnet_folder(
        tmp_path / "encoder", preparation={**PREPARATION, "size": {"shortest_edge": 18}, "crop_size": 16}
    )


@pytest.fixture
def store(images: Path, encoder: str, command: Callable[..., Any], tmp_path: Path) -> Path:
    """As the encoder takes them."""
    out = tmp_path / "images.arrow"
    splits = ("--splits", "0.34,0.33,0.33")
    said = command("data", "import", "images", images, "--out", out, "--encoder", encoder, *splits)
    assert said.code == 0, said.err
    return out


def experiment(store: Path, model: Any, **changes: Any) -> Experiment:
    fields: dict[str, Any] = {
        "name": f"pictures-{model.kind}",
        "source": ClassStore(path=str(store)),
        "episodes": EpisodeSpec(ways=2, shots=2, queries=2),
        "model": model,
        "algorithm": MAML(inner_lr=0.5),
        "meta_batch_size": 2,
        "num_steps": 4,
        "evaluation": Evaluation(every=2, val_episodes=8, test_episodes=8),
    }
    return Experiment(**fields | changes)


def test_import_and_embed(store: Path, images: Path, encoder: str, command: Callable[..., Any], tmp_path: Path) -> None:
    prepared = ClassStore(path=str(store)).preprocessing
    assert isinstance(prepared, ImagePreprocessing) and prepared == Encoder(path=encoder).architecture.preprocessing
    assert (prepared.feature_shape, prepared.shortest, prepared.mean) == ((3, 16, 16), 18, (0.5, 0.5, 0.5))
    twice = command(
        "data", "import", "images", images, "--out", store, "--encoder", encoder, "--size", "32", "--invert"
    )
    assert twice.code == 2 and "leave out --size, --invert" in twice.err
    out = tmp_path / "vectors.arrow"
    said = command("data", "embed", store, "--encoder", encoder, "--out", out, "--no-normalized", "--pooling", "fc")
    assert said.code == 0 and "54 vectors of 5 numbers" in said.out, said.err
    body = Encoder(path=encoder, pooling="fc", normalized=False).body(prepared)
    first = ClassStore(path=str(store)).examples(0)[:2]
    expected = body(prepared.normalize(torch.from_numpy(np.array(first)))).detach().numpy()
    np.testing.assert_allclose(np.array(ClassStore(path=str(out)).examples(0)[:2]), expected, rtol=1e-4, atol=1e-5)
    alone = command("data", "embed", store, "--encoder", encoder, "--out", out, "--module", "nets:Net")
    assert alone.code == 2 and "--module and --vector-size go together" in alone.err
    texts = command("data", "embed", out, "--encoder", encoder, "--out", tmp_path / "more.arrow")
    assert texts.code == 2 and "takes images, but the source's preprocessing is 'encoded'" in texts.err


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_learners_of_an_image_encoder_take_pictures(
    kind: str, store: Path, images: Path, encoder: str, train: Callable[..., Any], tmp_path: Path
) -> None:
    """Of another size than the encoder's, too, which are brought to it; the head alone is trained."""
    path = vit_folder(tmp_path / "vit") if kind == "vit" else encoder
    learner = train(experiment(store, Encoder(path=path)), register=False).learner
    assert learner.meta.keys() == {"head.weight", "head.bias"}
    known = [images / name / f"{place}.png" for name in ("c7", "c8") for place in range(2)]
    asked = [images / "c7" / "4.png", images / "c8" / "5.png"]
    expected = learner.adapt(known, ["a", "a", "b", "b"]).predict_proba(asked)
    with pytest.raises(InputError, match="image 0"):
        learner.adapt([np.zeros((16, 18, 5), dtype=np.uint8)] * 2, ["a", "b"])
    learner.save(tmp_path / "learner")
    shutil.rmtree(path)
    again = metaray.load(str(tmp_path / "learner"))
    assert np.array_equal(again.adapt(known, ["a", "a", "b", "b"]).predict_proba(asked), expected)


def fresh(tmp_path: Path, *words: object) -> Any:
    """What a process of its own prints, on a node that has never seen the weights."""
    environment = {**os.environ, "METARAY_CACHE": str(tmp_path / "another node")}
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("before", "link"), [(False, True), (True, False)], ids=["inside-linked", "before-whole"])
def test_the_whole_way(
    before: bool,
    link: bool,
    store: Path,
    images: Path,
    encoder: str,
    train: Callable[..., Any],
    command: Callable[..., Any],
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trained and registered; then, without the encoder's folder, adapted to a folder of images.

    The command line of a fresh process, Python and MLflow give the same answers.
    """
    wanted = experiment(store, Encoder(path=encoder), name=f"chain-{before}-{link}")
    if before:
        vectors = tmp_path / "vectors.arrow"
        assert command("data", "embed", store, "--encoder", encoder, "--out", vectors).code == 0
        wanted = experiment(vectors, MLP(hidden=(6,), batch_norm=False), name=wanted.name, algorithm=ProtoNet())
    told = train(wanted, link_encoder=link)
    assert told.version is not None
    shutil.rmtree(encoder)
    assert len(list((tmp_path / "runs").glob("blobs/*"))) == link
    support, query = tmp_path / "support", tmp_path / "query"
    for name in ("c7", "c8"):
        for place in range(6):
            to = (support if place < 2 else query) / name
            to.mkdir(parents=True, exist_ok=True)
            shutil.copy(images / name / f"{place}.png", to)
    model, database_uri = told.version.uri, ("--tracking-uri", database)
    words = ("-m", "metaray", "adapt", model, "--support", support, *database_uri, "--json")
    of_folder = json.loads(fresh(tmp_path, *words, "--query", query))
    of_one = json.loads(fresh(tmp_path, *words, "--query", query / "c8" / "3.png"))
    monkeypatch.setenv("METARAY_CACHE", str(tmp_path / "a third node"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    learner = metaray.load(model, tracking_uri=database)
    assert isinstance(learner.preprocessing, EncodedPreprocessing) is before and (learner.link is not None) is link
    known, asked = (sorted(folder.rglob("*.png")) for folder in (support, query))
    task = learner.adapt(known, [path.parent.name for path in known])
    labels = list(task.predict(asked))
    assert [one["label"] for one in of_folder] == labels
    assert of_one[0]["label"] == task.predict([query / "c8" / "3.png"])[0]
    import mlflow.pyfunc

    rows: list[tuple[str, str | None, bytes]] = []
    rows += [("support", path.parent.name, path.read_bytes()) for path in known]
    rows += [("query", None, path.read_bytes()) for path in asked]
    found = mlflow.pyfunc.load_model(model).predict(pd.DataFrame(rows, columns=["role", "label", "image"]))
    assert list(found["label"]) == labels
    np.testing.assert_allclose(found["probability"], task.predict_proba(asked).max(1), rtol=1e-6)
    if link:
        shutil.rmtree(tmp_path / "runs" / "blobs")
        monkeypatch.setenv("METARAY_CACHE", str(tmp_path / "a fourth node"))
        with pytest.raises(metaray.InputError, match="it is no learner without"):
            metaray.load(model, tracking_uri=database)
