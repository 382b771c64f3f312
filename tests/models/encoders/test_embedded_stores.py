"""A frozen encoder over a store, and learners of its vectors, which take texts."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import metaray
from metaray import ClassStore, EpisodeSpec, Evaluation, Experiment
from metaray.algorithms import MAML, ProtoNet
from metaray.data.preprocessing import EncodedPreprocessing, TextPreprocessing
from metaray.data.store_file import read_store
from metaray.data.texts.importing import import_texts
from metaray.data.texts.rows import Columns
from metaray.errors import InputError
from metaray.learners.learner_file import ENCODER
from metaray.manifest import sealed
from metaray.models import MLP, Encoder
from metaray.models.encoders.embedding import Batches, Made, Task, embed_store
from metaray.training.checks.preflight import preflight
from tests.models.encoders.tiny import WORDS, bert_folder, tokenizer

TEXTS = TextPreprocessing(tokenizer=tokenizer(), longest=12)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return bert_folder(tmp_path / "encoder")


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Nine classes of eight texts that begin with the word of their class."""
    generator = np.random.default_rng(0)
    lines = ["text,label,domain"]
    for place, word in enumerate(WORDS[:9]):
        for _ in range(8):
            rest = generator.choice(WORDS[9:], generator.integers(1, 6))
            lines.append(f"{word} {' '.join(rest)},{word},{'ab'[place % 2]}")
    source, out = tmp_path / "texts.csv", tmp_path / "texts.arrow"
    source.write_text("\n".join(lines) + "\n")
    import_texts([source], out, TEXTS, columns=Columns(group="domain"), splits=(1 / 3, 1 / 3, 1 / 3))
    return str(out)


def test_vectors_are_what_the_encoder_makes(store: str, folder: str, tmp_path: Path) -> None:
    encoder, out = Encoder(path=folder), tmp_path / "vectors.arrow"
    done: list[tuple[int, int]] = []
    report = embed_store(store, encoder, out, batch_size=16, progress=lambda *one: done.append(one))
    assert report == (out, 72, 8, 0) and done[-1] == (72, 72) and len(done) == 5
    texts, vectors = read_store(Path(store)), read_store(out, verify=True)
    assert vectors.examples.shape == (72, 8) and vectors.examples.dtype == np.float32
    for name in ("class_names", "counts", "schemes", "groups"):
        assert getattr(vectors.meta, name) == getattr(texts.meta, name)
    assert vectors.meta.origin["encoder_sha256"] == encoder.sha256
    prepared = ClassStore(path=str(out)).preprocessing
    assert isinstance(prepared, EncodedPreprocessing) and prepared.raw == TEXTS
    assert Encoder.parse(prepared.encoder, where="encoder") == encoder
    body = encoder.body()
    for row in (0, 20, 71):
        tokens = torch.from_numpy(texts.examples[row].astype(np.int64))[None]
        expected = body({"tokens": tokens, "mask": torch.ones_like(tokens, dtype=torch.bool)})[0]
        torch.testing.assert_close(torch.from_numpy(vectors.examples[row].copy()), expected)
    assert not (tmp_path / ".vectors.arrow.embedding").exists()


class Stopped(Exception):
    pass


def stop(done: int, total: int) -> None:
    if done >= 40:
        raise Stopped


def test_a_stopped_one_goes_on(store: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaray.models.encoders.embedding.SAVED_EVERY", 2)
    encoder, whole, out = Encoder(path=folder), tmp_path / "whole.arrow", tmp_path / "out.arrow"
    embed_store(store, encoder, whole, batch_size=8)
    with pytest.raises(Stopped):
        embed_store(store, encoder, out, batch_size=8, progress=stop)
    assert not out.exists()
    assert embed_store(store, encoder, out, batch_size=8).before == 32
    assert out.read_bytes() == whole.read_bytes()
    with pytest.raises(Stopped):
        embed_store(store, encoder, out, batch_size=8, progress=stop)
    assert embed_store(store, encoder, out, batch_size=9).before == 0, "other batches may round differently"
    notes = tmp_path / ".out.arrow.embedding" / "done.json"
    with pytest.raises(Stopped):
        embed_store(store, encoder, out, batch_size=8, progress=stop)
    notes.write_text("{")
    assert embed_store(store, encoder, out, batch_size=8).before == 0


def test_what_was_left_is_checked(store: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaray.models.encoders.embedding.SAVED_EVERY", 1)
    encoder, whole, out = Encoder(path=folder), tmp_path / "whole.arrow", tmp_path / "out.arrow"
    embed_store(store, encoder, whole, batch_size=8)
    with pytest.raises(Stopped):
        embed_store(store, encoder, out, batch_size=8, progress=stop)
    place = tmp_path / ".out.arrow.embedding" / "vectors"
    content = bytearray(place.read_bytes())
    at = next(at for at, byte in enumerate(content) if byte)
    content[at] ^= 4
    place.write_bytes(content)
    assert embed_store(store, encoder, out, batch_size=8).before == 32, "a batch is not as it was noted"
    assert out.read_bytes() == whole.read_bytes()


def test_batches_may_come_in_any_order(
    store: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from several machines, of which one is lost with what it had."""
    monkeypatch.setattr("metaray.models.encoders.embedding.SAVED_EVERY", 1)
    encoder, whole, out = Encoder(path=folder), tmp_path / "whole.arrow", tmp_path / "out.arrow"
    embed_store(store, encoder, whole, batch_size=8)

    def shuffled(task: Task, numbers: list[int]) -> Iterator[Made]:
        batches = Batches(task)
        for number in [*numbers[::-2], *numbers[-2::-2]]:
            yield number, batches.vectors(number)

    with pytest.raises(Stopped):
        embed_store(store, encoder, out, batch_size=8, run=shuffled, progress=stop)
    asked: list[list[int]] = []

    def watched(task: Task, numbers: list[int]) -> Iterator[Made]:
        asked.append(numbers)
        return shuffled(task, numbers)

    assert embed_store(store, encoder, out, batch_size=8, run=watched).before == 40
    assert asked == [[1, 3, 5, 7]] and out.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_a_killed_process_loses_little(store: str, folder: str, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.arrow", tmp_path / "out.arrow"
    embed_store(store, Encoder(path=folder), whole, batch_size=8)
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from metaray.models.encoders import embedding\n"
        "from metaray.models import Encoder\n"
        "embedding.SAVED_EVERY = 2\n"
        "end = lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done >= 40 else None\n"
        "store, encoder, out = sys.argv[1:]\n"
        "embedding.embed_store(store, Encoder(path=encoder), Path(out), batch_size=8, progress=end)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, store, folder, str(out)], check=False)
    assert done.returncode == -signal.SIGKILL and not out.exists()
    assert embed_store(store, Encoder(path=folder), out, batch_size=8).before == 32
    assert out.read_bytes() == whole.read_bytes()


def test_another_store_in_the_place_of_the_one_asked_for(store: str, folder: str) -> None:
    described = Encoder(path=folder).model_dump(mode="json")
    with pytest.raises(InputError, match="its fingerprint is .* here, but abc elsewhere"):
        Batches(Task(store, "abc", described, 8, "cpu", ()))


def test_what_is_refused(store: str, folder: str, tmp_path: Path) -> None:
    out = tmp_path / "out.arrow"
    with pytest.raises(InputError, match="only a frozen one can be cached"):
        embed_store(store, Encoder(path=folder, frozen=False), out)
    embed_store(store, Encoder(path=folder), out)
    with pytest.raises(InputError, match=r"batch_size: at least 1 \(got 0\)"):
        embed_store(store, Encoder(path=folder), out, batch_size=0)
    before = Path(store).read_bytes()
    with pytest.raises(InputError, match="texts.arrow: is what the store would be made of, and would be lost"):
        embed_store(store, Encoder(path=folder), Path(store))
    assert Path(store).read_bytes() == before
    with pytest.raises(InputError, match="the source's preprocessing is 'encoded'"):
        embed_store(str(out), Encoder(path=folder), tmp_path / "again.arrow")
    with pytest.raises(InputError, match="no such class store"):
        embed_store(str(tmp_path / "nowhere.arrow"), Encoder(path=folder), out)
    with pytest.raises(InputError, match="texts become vectors by an encoder, which a learner holds"):
        ClassStore(path=str(out)).preprocessing.read("play")


def experiment(path: str, **changes: Any) -> Experiment:
    fields: dict[str, Any] = {
        "name": "vectors",
        "source": ClassStore(path=path),
        "episodes": EpisodeSpec(ways=2, shots=2, queries=2),
        "model": MLP(hidden=(6,), batch_norm=False),
        "algorithm": ProtoNet(),
        "meta_batch_size": 2,
        "num_steps": 4,
        "evaluation": Evaluation(every=2, val_episodes=8, test_episodes=8),
    }
    return Experiment(**fields | changes)


@pytest.mark.parametrize("algorithm", [ProtoNet(), MAML(inner_lr=0.5)], ids=lambda one: one.kind)
def test_learners_of_vectors_take_texts(
    algorithm: Any, store: str, folder: str, train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "vectors.arrow"
    embed_store(store, Encoder(path=folder), out)
    told = train(experiment(str(out), algorithm=algorithm), register=False)
    assert "class_means" in told.result.baselines and told.result.compared == "embeddings"
    learner = told.learner
    known, labels = ["play rain", "song sun", "money now", "card wind"], ["a", "a", "b", "b"]
    asked = ["play wind now", "please money", "album"]
    vectors = Encoder(path=folder).body()(
        TEXTS.normalize({n: torch.from_numpy(v) for n, v in TEXTS.read(asked).items()})
    )
    torch.testing.assert_close(learner.inputs(asked), vectors)
    expected = learner.adapt(known, labels).predict_proba(asked)
    learner.save(tmp_path / "learner")
    learner.adapt(known, labels).save(tmp_path / "task")
    judged = metaray.evaluate(str(tmp_path / "learner"), episodes=8, progress=False)
    assert judged.score.mean == told.result.meta_test.mean
    shutil.rmtree(folder)
    monkeypatch.setenv("METARAY_CACHE", str(tmp_path / "another node"))
    again = metaray.load(str(tmp_path / "learner"))
    assert np.array_equal(again.adapt(known, labels).predict_proba(asked), expected)
    task = metaray.load_task(str(tmp_path / "task"))
    assert np.array_equal(task.predict_proba(asked), expected)
    more = (["play song", "wind rain now"], ["b", "a"])
    if learner.algorithm.kind == "protonet":
        whole = again.adapt(known + more[0] + ["album"], labels + more[1] + ["c"]).predict_proba(asked)
        grown = task.extend(*more).extend("album", ["c"])
        np.testing.assert_allclose(grown.predict_proba(asked), whole, atol=1e-6)
    else:
        assert not np.allclose(task.extend(*more, how="continue").predict_proba(asked), expected, atol=1e-6)
    with pytest.raises(InputError, match="a learner of them needs the encoder that made these: .* no such file"):
        preflight(experiment(str(out)))


def test_a_learner_without_its_encoder(store: str, folder: str, train: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "vectors.arrow"
    embed_store(store, Encoder(path=folder), out)
    learner = train(experiment(str(out)), register=False).learner
    files = learner.files()
    assert ENCODER in files and json.loads(files["learner.json"])["format"] == 3
    lost = sealed({n: d for n, d in files.items() if n not in (ENCODER, "manifest.json")})
    (tmp_path / "lost").mkdir()
    for name, data in lost.items():
        (tmp_path / "lost" / name).write_bytes(data)
    with pytest.raises(InputError, match="has format 3, but no encoder.safetensors"):
        metaray.load(str(tmp_path / "lost"))
    other = dataclasses.replace(learner, encoder={"words.weight": torch.zeros(2)})
    other.save(tmp_path / "other")
    with pytest.raises(
        InputError, match="encoder's tensor layers.0.joined.bias: the model wants .*, the file has absent"
    ):
        metaray.load(str(tmp_path / "other"))
