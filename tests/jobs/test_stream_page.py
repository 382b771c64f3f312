"""The benchmark of a stream of classes: its page is built from records, and a record goes on where it was stopped."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from jobs.benchmarks import stream
from metaray.algorithms import ProtoNet
from metaray.algorithms.algorithm import start
from metaray.algorithms.task_shape import TaskShape
from metaray.data import ClassStore
from metaray.episodes.episode import EpisodeSpec
from metaray.learners.learner import Learner
from metaray.models import MLP

TAGS = {"git.commit": "abc", "git.dirty": "false", "torch.version": "2", "cpu.capability": "AVX2"}


def test_a_record_goes_on_and_makes_the_page(tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "CLASSES", (2, 8))
    monkeypatch.setattr(stream, "SHOTS", 3)
    monkeypatch.setattr(stream, "ClassStore", lambda path, split: ClassStore(path=path))
    prepared = ClassStore(path=str(tiny_store)).preprocessing
    model = MLP(hidden=(2,))
    _, meta = start(ProtoNet(), model, TaskShape(prepared.feature_shape, 3, preprocessing=prepared), seed=0)
    learner = Learner(ProtoNet(), model, meta, prepared, EpisodeSpec(ways=3, shots=1, queries=2))
    about = {"parameters_sha256": "f" * 64, "best_step": 3, "num_steps": 9, "training_s": 60}
    given = argparse.Namespace(out=tmp_path, data=str(tiny_store), orders=2)
    (tmp_path / "stream").mkdir()
    path = tmp_path / "stream" / "protonet-together.json"
    for orders in (1, 2, 2):
        given.orders = orders
        stream.judge("protonet", "together", learner, about, given, TAGS)
    record: dict[str, Any] = json.loads(path.read_text())
    assert len(record["orders"]) == len(record["judging_s"]) == 2
    path.write_text(json.dumps(record | {"orders": [[1.0, 0.5], [0.5, 0.25]]}))
    stream.judge("protonet", "together", learner, about, given, TAGS)
    stream.built(tmp_path)
    page = (tmp_path / "stream.md").read_text()
    assert "| classes | OML, published | ProtoNet |\n|---|---|---|\n| 2 |  | 75.00 +- 317.66 |\n" in page
    assert "(stream/curve.png)" in page and (tmp_path / "stream" / "curve.png").stat().st_size > 5000
    assert "the learner of step 3 of 9" in page and str(tmp_path) not in page
    assert (tmp_path / "stream.md").read_text().count("| 8 |  | 37.50 +- 158.83 |") == 1
    stream.judge("protonet", "together", learner, about | {"parameters_sha256": "e" * 64}, given, TAGS)
    assert json.loads(path.read_text())["orders"] == record["orders"], "another learner starts anew"
