"""Texts the whole way: imported from CSV, trained on, registered, adapted to without the encoder's folder."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

import metaray
from metaray import ClassStore, EpisodeSpec, Evaluation, Experiment
from metaray.algorithms import MAML, Algorithm, InnerAdam, ProtoNet
from metaray.models import Encoder, LinearMap, LoRA
from tests.models.encoders.tiny import WORDS, bert_folder, static_folder

KNOWN = [("play a song", "music"), ("the band", "music"), ("my account balance", "bank"), ("transfer money", "bank")]
ASKED = ["an album of the band", "my card, please", "rain", "money money money"]
FACTORS = MAML(inner_lr=0.01, inner_steps=2, adapts=("head.*", "*.lora_*"), inner_optimizer=InnerAdam(eps=1e-4))


class Chain(NamedTuple):
    """A way from an encoder to a learner.

    Attributes:
        encoder: "bert", or "static" words.
        where: "lora" and "head" have it in the network, "before" trains on vectors that it has made.
        link: Whether its weights lie in the storage.
    """

    encoder: str
    where: str
    algorithm: Algorithm
    link: bool


CHAINS = {
    "lora-protonet-whole": Chain("bert", "lora", ProtoNet(temperature=0.1), False),
    "lora-maml-linked": Chain("bert", "lora", FACTORS, True),
    "static-maml-linked": Chain("static", "head", MAML(inner_lr=0.5), True),
    "static-before-whole": Chain("static", "before", ProtoNet(), False),
}


def written(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
    """A CSV file."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def experiment(store: Path, model: Any, chain: Chain, name: str) -> Experiment:
    return Experiment(
        name=name,
        source=ClassStore(path=str(store)),
        episodes=EpisodeSpec(ways=2, shots=2, queries=2),
        model=model,
        algorithm=chain.algorithm,
        meta_batch_size=2,
        num_steps=4,
        evaluation=Evaluation(every=2, val_episodes=8, test_episodes=8),
    )


def fresh(tmp_path: Path, *words: object) -> Any:
    """What `metaray` in a process of its own answers, on a node that has never seen the weights."""
    environment = {**os.environ, "METARAY_CACHE": str(tmp_path / "another node")}
    arguments = [sys.executable, "-m", "metaray", *map(str, words), "--json"]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAINS)
def test_the_whole_way(
    name: str,
    command: Callable[..., Any],
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command line of fresh processes, Python and MLflow give the same answers, of many texts and of one."""
    chain = CHAINS[name]
    encoder = (bert_folder if chain.encoder == "bert" else static_folder)(tmp_path / "encoder")
    generator = np.random.default_rng(0)
    rows = [(f"{word} {' '.join(generator.choice(WORDS[9:], 3))}", word) for word in WORDS[:9] for _ in range(6)]
    given, store = written(tmp_path / "texts.csv", ("text", "label"), rows), tmp_path / "texts.arrow"
    how = ("--longest", "12", *(() if chain.encoder == "bert" else ("--no-special",)))
    splits = ("--splits", "0.34,0.33,0.33", "--out", store)
    said = command("data", "import", "text", given, "--tokenizer", encoder, *how, *splits)
    assert said.code == 0, said.err
    model: Any = Encoder(path=encoder)
    if chain.where == "lora":
        model = LoRA(model=model, targets=("*.query", "*.value"), rank=2)
    if chain.where == "before":
        texts, store, model = store, tmp_path / "vectors.arrow", LinearMap()
        assert command("data", "embed", texts, "--encoder", encoder, "--out", store).code == 0
    recipe = tmp_path / "recipe.json"
    recipe.write_text(experiment(store, model, chain, f"texts-{name}").to_json())
    places = ("--storage", tmp_path / "runs", "--tracking-uri", database)
    told = command("train", recipe, *places, *(("--link-encoder",) if chain.link else ()), "--json")
    assert told.code == 0, told.err
    uri = json.loads(told.out)["registered"]
    shutil.rmtree(encoder)
    blobs = [*(tmp_path / "runs").glob("blobs/*")]
    assert len(blobs) == chain.link

    known = written(tmp_path / "known.csv", ("text", "label"), KNOWN)
    many, one = (written(tmp_path / f"{len(a)}.csv", ("text",), [(text,) for text in a]) for a in (ASKED, ASKED[1:2]))
    to = ("--support", known, "--tracking-uri", database)
    answers = fresh(tmp_path, "adapt", uri, *to, "--query", many, "--save", tmp_path / "task")
    (alone,) = fresh(tmp_path, "adapt", uri, *to, "--query", one)
    again = fresh(tmp_path, "predict", tmp_path / "task", "--query", many)

    monkeypatch.setenv("METARAY_CACHE", str(tmp_path / "a third node"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    learner = metaray.load(uri)
    assert (learner.link is not None) is chain.link
    texts_known, labels = zip(*KNOWN, strict=True)
    task = learner.adapt(texts_known, labels)
    expected, chances = [str(label) for label in task.predict(ASKED)], task.predict_proba(ASKED)
    for found in (answers, again):
        assert [row["label"] for row in found] == expected
        np.testing.assert_allclose([row["probability"] for row in found], chances.max(1), atol=6e-5)
    assert alone["label"] == expected[1] and str(task.predict(ASKED[1])[0]) == expected[1]
    assert alone["probability"] == pytest.approx(chances[1].max(), abs=6e-5)

    import mlflow.pyfunc

    table = [("support", label, text) for text, label in KNOWN] + [("query", None, text) for text in ASKED]
    served = mlflow.pyfunc.load_model(uri).predict(pd.DataFrame(table, columns=["role", "label", "text"]))
    assert list(served["label"]) == expected
    np.testing.assert_allclose(served["probability"], chances.max(1), rtol=1e-6)
    if chain.link:
        shutil.rmtree(tmp_path / "runs" / "blobs")
        monkeypatch.setenv("METARAY_CACHE", str(tmp_path / "a fourth node"))
        with pytest.raises(metaray.InputError, match=f"no learner without: .*{blobs[0].name}"):
            metaray.load(uri)
