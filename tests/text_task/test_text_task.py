"""Texts as two files of a user's own, a preprocessing and an encoder, and no other change: stored, trained, used."""

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace as with_changes
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import metaray
from metaray.algorithms import MAML, R2D2, Algorithm, ProtoNet
from metaray.algorithms.algorithm import start
from metaray.algorithms.task_shape import TaskShape
from metaray.data import ClassStore
from metaray.data.ragged import LADDER, Ragged
from metaray.data.store_file import read_store
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.sampler import sample_episode
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.models import Custom
from metaray.records.result import Result
from metaray.serving.columns import inputs_of
from metaray.serving.pyfunc import PyfuncLearner, example_input
from metaray.tracking.registration import _baselines
from metaray.training.checks.preflight import preflight
from metaray.trust import Untrusted
from tests.text_task.recipe import Uncompared, experiment, store, texts
from tests.text_task.words import Words

INTENTS = Path(__file__).parents[2].parent / "shared" / "data" / "intent_banking77"
KNOWN = [
    ("play a song", "music"),
    ("the band and the album", "music"),
    ("my account balance", "banking"),
    ("transfer money", "banking"),
]
ASKED = [("an album of the band", "music"), ("what is my balance", "banking")]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return store(tmp_path_factory.mktemp("texts") / "texts.arrow", texts())


def write_csv(path: Path, rows: list[tuple[str, str]], *, labels: bool = True) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("text", "label"), *rows] if labels else [("text",), *((text,) for text, _ in rows)])


def test_the_store_holds_texts(path: str) -> None:
    found = read_store(Path(path), verify=True)
    assert isinstance(found.examples, Ragged) and found.meta.feature_shape == (None,) and found.meta.dtype == "int32"
    source = ClassStore(path=path)
    assert source.preprocessing == Words() and source.num_classes("meta-train") == 6
    first = texts()["weather"][0]
    assert np.array_equal(found.examples[0], Words().read(first)["values"][0, : len(first.split())])


def test_its_code_is_imported_only_where_the_experiment_may(path: str) -> None:
    text = experiment(path).to_json()
    kept = Experiment.from_json(text, trust=("tests",))
    assert kept.source.preprocessing == Words() and kept == Experiment.from_json(text)
    bare = json.dumps(json.loads(text) | {"model": {"kind": "mlp", "hidden": [4], "batch_norm": False}})
    with pytest.raises(Untrusted, match=r"texts.arrow: refusing to import 'tests.text_task.words:Words'"):
        _ = Experiment.from_json(bare, trust=()).source.preprocessing
    assert Experiment.from_json(bare, trust=()).source.fingerprint == kept.source.fingerprint


@pytest.mark.parametrize(
    "algorithm",
    [
        pytest.param(ProtoNet(), id="protonet"),
        pytest.param(MAML(inner_lr=0.5), id="maml", marks=pytest.mark.slow),
        pytest.param(R2D2(), id="r2d2", marks=pytest.mark.slow),
    ],
)
def test_learned_registered_and_used(
    algorithm: Algorithm,
    path: str,
    train: Callable[..., Any],
    command: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = train(experiment(path, algorithm=algorithm), register=False)
    result = told.result
    assert result.compared == "word counts" and result.nearest_neighbor is not None
    assert result.nearest_neighbor.mean > 0.4, "words of the topic are shared"
    folder = tmp_path / "learner"
    learner = told.learner
    learner.save(folder)
    learner = metaray.load(str(folder), trust=["tests"])
    with pytest.raises(Untrusted):
        metaray.load(str(folder))
    known, labels = zip(*KNOWN, strict=True)
    if learner.ways is not None:  # fixed to those of its training
        known, labels = (*known, "doctor and pill", "fever"), (*labels, "health", "health")
    task = learner.adapt(known, labels)
    found = task.predict_proba([text for text, _ in ASKED])
    assert found.shape == (2, len(set(labels)))
    task.save(tmp_path / "task")
    again = metaray.load_task(str(tmp_path / "task"), trust=["tests"]).predict_proba([text for text, _ in ASKED])
    assert np.array_equal(found, again)
    monkeypatch.chdir(tmp_path)
    write_csv(Path("known.csv"), list(zip(known, labels, strict=True)))
    write_csv(Path("new.csv"), ASKED)
    write_csv(Path("bare.csv"), ASKED, labels=False)
    files = ("--support", "known.csv", "--query", "new.csv")
    said = command("adapt", "learner", *files, "--save", "mine", "--trust", "tests")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0].split() == ["text", "label", "probability"] and lines[-2].startswith("correct: ")
    rows = json.loads(command("predict", "mine", "--query", "bare.csv", "--trust", "tests", "--json").out)
    assert [row["text"] for row in rows] == [text for text, _ in ASKED]
    assert [row["probability"] for row in rows] == [round(float(row.max()), 4) for row in found]


def test_what_a_scoring_server_takes(path: str, train: Callable[..., Any]) -> None:
    learner = train(experiment(path, algorithm=ProtoNet()), register=False).learner
    assert [column[:2] for column in inputs_of(learner)] == [
        ("role", "string"),
        ("label", "string"),
        ("text", "string"),
    ]
    served = PyfuncLearner(learner)
    assert list(served.predict(example_input(learner)).columns)[:2] == ["label", "probability"]
    rows = [("support", label, text) for text, label in KNOWN] + [("query", "", text) for text, _ in ASKED]
    table = pd.DataFrame(rows, columns=["role", "label", "text"])
    assert served.predict(table)["probability"].between(0.5, 1).all()
    table.loc[1, "text"] = " "
    with pytest.raises(InputError, match="row 1: text is empty"):
        served.predict(table)


def test_what_the_preflight_refuses(path: str, tmp_path: Path) -> None:
    preflight(experiment(path))
    small = Custom(path="tests.text_task.encoder:Encoder", options={"vocabulary": 100})
    with pytest.raises(InputError, match=r"cannot take a batch of shape words \(2, 8\), mask \(2, 8\).*out of range"):
        preflight(experiment(path, model=small))
    careless = Custom(path="tests.text_task.careless:Careless")
    with pytest.raises(InputError, match="answer to an input depends on how far it is padded"):
        preflight(experiment(path, model=careless))
    with pytest.raises(InputError, match=re.escape("mlp takes examples of one shape, not ragged ones of shape (any)")):
        preflight(experiment(path, model=metaray.MLP()))


def test_what_cannot_be_written(tmp_path: Path) -> None:
    out = tmp_path / "texts.arrow"
    with pytest.raises(InputError, match="class 'b': text 1 is empty"):
        store(out, {"a": ["one"], "b": ["two", " "]}, {"meta-train": ["a", "b"]})
    with pytest.raises(InputError, match="class 'b': text 0 is empty"):
        store(out, {"a": ["one"], "b": ["!?"]}, {"meta-train": ["a", "b"]})
    with pytest.raises(InputError, match=r"unknown class of meta-train 'c'"):
        store(out, {"a": ["one"], "b": ["two"]}, {"meta-train": ["a", "c"]})
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not INTENTS.is_dir(), reason="the intents of Banking77 are not here")
def test_intents_of_bank_customers(tmp_path: Path) -> None:
    by_intent: dict[str, list[str]] = {}
    with (INTENTS / "train.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            by_intent.setdefault(row["category"], []).append(row["text"])
    assert len(by_intent) == 77
    path = store(tmp_path / "intents.arrow", by_intent, (0.6, 0.2, 0.2), Words(vocabulary=4096))
    model = Custom(path="tests.text_task.encoder:Encoder", options={"vocabulary": 4096})
    preflight(experiment(path, algorithm=ProtoNet(), model=model, meta_batch_size=1))
    source, spec = ClassStore(path=path), EpisodeSpec(ways=3, shots=2, queries=3)
    found = {sample_episode(source, spec, "meta-train", 0, i).task.support.x["values"].shape[1] for i in range(20)}
    assert len(found) > 1 and found <= set(LADDER)


def test_described_on_the_command_line(path: str, command: Callable[..., Any], tmp_path: Path) -> None:
    said = command("data", "describe", path, "--ways", "3", "--shots", "2", "--queries", "3")
    assert said.code == 0 and said.out.splitlines()[0] == f"{path}: 12 classes, 144 examples of shape (any)"
    assert "resized" not in said.out and json.loads(command("data", "describe", path, "--json").out)["shape"] == [None]
    drawn = command("data", "describe", path, "--ways", "3", "--gallery", tmp_path / "gallery.png")
    assert drawn.code == 2 and "a gallery shows images, but an example has the shape (any)" in drawn.err
    exported = command("data", "export", path, "--out", tmp_path / "task", "--ways", "3")
    assert exported.code == 2 and "class_store yields no images, which is what an export writes" in exported.err


def test_queries_may_be_longer_than_the_support_that_waits_for_them(tmp_path: Path) -> None:
    """Under transductive batch norm the support is kept with a task, and put together with queries of any length."""
    algorithm, words = ProtoNet(batch_norm="transductive"), Words()
    model, shape = Custom(path="tests.text_task.encoder:Encoder"), TaskShape((None,), 2, preprocessing=words)
    _, meta = start(algorithm, model, shape, seed=0)
    learner = metaray.Learner(algorithm, model, meta, words, EpisodeSpec(ways=2, shots=2, queries=2))
    known, labels = zip(*KNOWN, strict=True)
    task = learner.adapt(known, labels)
    asked = [text for text, _ in ASKED] + ["word " * 30 + "album"]
    found = task.predict_proba(asked)
    inductive = with_changes(learner, algorithm=ProtoNet()).adapt(known, labels).predict_proba(asked)
    assert np.allclose(found, inductive, atol=1e-6), "the encoder has no batch norm"
    task.save(tmp_path / "task")
    assert np.array_equal(metaray.load_task(str(tmp_path / "task"), trust=["tests"]).predict_proba(asked), found)


def test_without_that_baseline(train: Callable[..., Any], tmp_path: Path) -> None:
    path = store(tmp_path / "texts.arrow", texts(), words=Uncompared())
    told = train(experiment(path, algorithm=ProtoNet(), num_steps=2), register=False)
    result = told.result
    assert result.compared is None and result.nearest_neighbor is None and result.baselines == {}
    assert Result.from_json(result.to_json()) == result and "nearest" not in str(told)
    assert list(_baselines(experiment(path), {}, episodes=20)) == ["chance"]
    judged = metaray.evaluate(told.run.storage.root + "/learner", episodes=4, trust=["tests"], progress=False)
    assert judged.nearest_neighbor is None and "nearest" not in str(judged)
