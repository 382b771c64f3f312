"""Folders of learners: those of older versions, and descriptions that make no sense."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metaray.algorithms import MAML, Algorithm, Baseline, ProtoNet
from metaray.algorithms.algorithm import start
from metaray.algorithms.task_shape import TaskShape
from metaray.data.preprocessing import ImagePreprocessing
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from metaray.learners.learner import Learner
from metaray.learners.learner_file import DESCRIPTION, PARAMETERS, read_folder
from metaray.learners.loading import load_learner
from metaray.manifest import sealed
from metaray.models import MLP
from metaray.tasks import Classification
from tests.damage import KINDS, damaged

PREPROCESSING = ImagePreprocessing(height=4, width=4, mean=(0.4,))
MODEL = MLP(hidden=(5,))
# As version 1 of the format was first written: before there were other inputs than images, and other targets.
OLD: dict[str, Any] = {
    "algorithm": {
        "batch_norm": "transductive",
        "inner_lr": 0.4,
        "inner_steps": 1,
        "kind": "maml",
        "second_order": True,
    },
    "format": 1,
    "inner_steps": None,
    "model": {"batch_norm": True, "hidden": [5], "kind": "mlp"},
    "preprocessing": {
        "height": 4,
        "invert": False,
        "mean": [0.4],
        "mode": "L",
        "resample": "lanczos",
        "std": [1.0],
        "width": 4,
    },
    "provenance": {"experiment": "omniglot"},
    "seed": 0,
    "spec": {"queries": 2, "shots": 1, "ways": 3},
    "step": 7,
}


def learner_of(algorithm: Algorithm) -> Learner:
    _, meta = start(algorithm, MODEL, TaskShape(PREPROCESSING.feature_shape, 3, classes=4), seed=0)
    return Learner(algorithm, MODEL, meta, PREPROCESSING, EpisodeSpec(ways=3, shots=1, queries=2), classes=4)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Algorithm, Any], Path]:
    """Writes a learner's folder with another description, and checksums that are right for it."""

    def make(algorithm: Algorithm, description: Any) -> Path:
        files = {DESCRIPTION: json.dumps(description).encode(), PARAMETERS: learner_of(algorithm).files()[PARAMETERS]}
        for name, data in sealed(files).items():
            (tmp_path / name).write_bytes(data)
        return tmp_path

    return make


def described(algorithm: Algorithm) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(learner_of(algorithm).files()[DESCRIPTION])
    return tree


def regression(target_size: object) -> dict[str, object]:
    return {"kind": "regression", "target_size": target_size}


def test_a_learner_of_before_there_were_other_inputs_than_images(write: Callable[..., Path]) -> None:
    maml = MAML(inner_lr=0.4, batch_norm="transductive")
    new, old = learner_of(maml), load_learner(write(maml, OLD))
    assert (old.preprocessing, old.algorithm, old.model, old.spec) == (PREPROCESSING, new.algorithm, MODEL, new.spec)
    assert (old.task, old.classes, old.step) == (Classification(), 0, 7)
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4), dtype=np.uint8)
    asked = images.repeat(2, axis=0)
    found, expected = (one.adapt(images, list("abc")).predict_proba(asked) for one in (old, new))
    assert np.array_equal(found, expected)


def test_a_learner_that_names_no_protocol_keeps_the_one_it_was_trained_with(write: Callable[..., Path]) -> None:
    silent = {**OLD, "algorithm": {key: value for key, value in OLD["algorithm"].items() if key != "batch_norm"}}
    assert load_learner(write(MAML(inner_lr=0.4), silent)).algorithm.batch_norm == "transductive"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("task", regression("1"), r"task regression: target_size: Input should be a valid integer \(got '1'\)"),
        ("task", regression(1.0), r"target_size: Input should be a valid integer \(got 1.0\)"),
        ("task", regression(True), r"target_size: Input should be a valid integer \(got True\)"),
        ("task", regression(0), r"target_size: .*greater than or equal to 1 \(got 0\)"),
        ("task", regression(-1), r"target_size: .*greater than or equal to 1 \(got -1\)"),
        ("task", {"kind": "clasification"}, r"unknown task 'clasification'.*classification"),
        ("task", None, r"task must be an object with a 'kind', one of binary, classification, regression"),
        ("classes", "x", r"classes: Input should be a valid integer \(got 'x'\)"),
        ("classes", -1, r"classes: .*greater than or equal to 0 \(got -1\)"),
        ("inner_steps", "many", r"inner_steps: Input should be a valid integer"),
        ("inner_steps", 2**63, r"inner_steps: Input should be less than or equal to 10000"),
        ("preprocessing", [4, 4], "preprocessing must be an object with a 'kind'"),
        ("provenance", [], "provenance must be a JSON object"),
    ],
)
def test_what_makes_no_sense(field: str, value: Any, message: str, write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=message):
        load_learner(write(MAML(), described(MAML()) | {field: value}))


def test_a_description_that_is_no_object(write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"learner\.json is not a JSON object"):
        read_folder(write(MAML(), []))


def test_targets_that_the_algorithm_does_not_learn(write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="algorithm protonet works with classes, but regression tasks have none"):
        load_learner(write(ProtoNet(), described(ProtoNet()) | {"task": regression(1)}))


def test_a_network_that_cannot_be_built(write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="its network cannot be built: "):
        load_learner(write(Baseline(), described(Baseline()) | {"classes": 2**62}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(value: float, tmp_path: Path) -> None:
    learner = learner_of(MAML())
    name = sorted(learner.meta)[1]
    with torch.no_grad():
        learner.meta[name].view(-1)[0] = value
    learner.save(tmp_path)
    with pytest.raises(InputError, match=f"parameters.safetensors: parameter {name} holds values that are not finite"):
        load_learner(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        '{"format": ' * 5000,
        '{"format": ' + "9" * 5000 + "}",
        r'{"format": "\u0000"}',
        '{"format": 1, "format": 1}',
        "\0",
    ],
)
def test_descriptions_that_are_hostile(text: str, tmp_path: Path) -> None:
    files = {DESCRIPTION: text.encode(), PARAMETERS: learner_of(MAML()).files()[PARAMETERS]}
    for name, data in sealed(files).items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=r"does not hold a whole learner: learner\.json: not JSON"):
        load_learner(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_no_damaged_learner_is_loaded(kind: str, tmp_path: Path) -> None:
    learner, rng = learner_of(MAML()), random.Random(kind)
    learner.save(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        raw = path.read_bytes()
        for _ in range(8):
            path.write_bytes(damaged(raw, kind, rng))
            try:
                found = load_learner(tmp_path)
            except InputError:
                continue
            assert found.files() == learner.files()
        path.write_bytes(raw)
