import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaray.api.evaluate import evaluate_model
from metaray.errors import InputError
from metaray.learners.loading import load_learner

Command = Callable[..., Any]


def test_evaluate_repeats_what_the_run_reported(trained: Any, command: Command) -> None:
    places = ("--tracking-uri", trained.uri, "--episodes", "8")
    code, out, err = command("evaluate", "models:/tiny@champion", *places)
    assert (code, err) == (0, "")
    reported = [line for line in out.splitlines() if line.startswith(("meta-test", "nearest", "protocol"))]
    assert len(reported) == 4
    assert set(reported) <= set(trained.ended.out.splitlines())
    assert re.fullmatch(r"meta-test accuracy: [01]\.\d{4} \+- \d\.\d{4} \(8 episodes\)", reported[-1])


def test_evaluate_as_json(trained: Any, command: Command) -> None:
    learner = trained.storage / "first" / "learner"
    options = ("--episodes", "6", "--part", "meta-val", "--json")
    code, out, err = command("evaluate", learner, *options)
    assert (code, err) == (0, "")
    found = json.loads(out)
    result = json.loads((trained.storage / "first" / "result.json").read_text())
    assert found["accuracy"] == result["meta_val"]
    assert found["split"] == "meta-val"
    assert found["protocol"] == result["protocol"]
    assert set(found["before_adaptation"]) == {"mean", "half_width", "episodes"}


def test_another_protocol(trained: Any) -> None:
    learner = str(trained.storage / "first" / "learner")
    settings = ["episodes.queries=5", "evaluation.inner_steps=3"]
    judged = evaluate_model(learner, episodes=2, split="meta-test", settings=settings, tracking=None, trust=[])
    assert judged.protocol == "3-way 1-shot, 5 queries a class, transductive batch norm, 3 inner steps"
    assert (judged.quality, judged.score.episodes) == ("accuracy", 2)


def test_other_data_than_it_comes_from_are_refused_unless_they_are_named(
    trained: Any, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = load_learner(trained.storage / "first" / "learner")
    provenance = learner.provenance | {"source_fingerprint": "0123456789abcdef"}
    dataclasses.replace(learner, provenance=provenance).save(tmp_path / "learner")
    judge: dict[str, Any] = {"episodes": 2, "split": "meta-test", "tracking": None, "trust": []}
    with pytest.raises(
        InputError, match=r"comes from other data: .* was 0123456789ab\.\.\., now .*--set source\.path="
    ):
        evaluate_model(str(tmp_path / "learner"), settings=["episodes.queries=3"], **judge)
    named = evaluate_model(str(tmp_path / "learner"), settings=[f"source.path={tiny_store}"], **judge)
    assert named.score.episodes == 2


def test_other_ways_than_the_learner_has(trained: Any) -> None:
    learner = str(trained.storage / "first" / "learner")
    with pytest.raises(InputError, match="the learner is 3-way, the evaluation 4-way"):
        evaluate_model(learner, episodes=2, split="meta-test", settings=["episodes.ways=4"], tracking=None, trust=[])
