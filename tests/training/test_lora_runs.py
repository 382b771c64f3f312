"""Whole runs that train low-rank factors of a frozen encoder: bits, what is kept, learners without its folder."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import metaray
from metaray.algorithms import MAML, Algorithm, InnerAdam, ProtoNet
from metaray.experiment import Experiment
from metaray.models import Encoder, LoRA
from metaray.records.result import parameters_sha256
from metaray.training.outer_loop import initial_state
from metaray.training.reduction import LocalReducer
from tests.models.encoders.image_runs import image_experiment
from tests.models.encoders.test_encoder import KNOWN, experiment
from tests.models.encoders.tiny import bert_folder
from tests.training.test_unequal import EPISODES, STEPS, advance, advance_by

CPU = torch.device("cpu")
ALGORITHMS = (
    MAML(inner_lr=0.01, inner_steps=2, adapts=("head.*", "*.lora_*"), inner_optimizer=InnerAdam(eps=1e-4)),
    ProtoNet(temperature=0.1),
)


def lora_experiment(folder: Path, algorithm: Algorithm, **changes: Any) -> Experiment:
    """A tiny one, whose encoder and store lie in a folder."""
    if not (folder / "encoder").exists():
        bert_folder(folder / "encoder")
    model = LoRA(model=Encoder(path=str(folder / "encoder")), targets=("*.query", "*.value"), rank=2)
    return experiment(str(folder / "texts.arrow"), model, algorithm=algorithm, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("which", ["maml", "protonet", "resnet", "vit"])
def test_any_number_of_workers_trains_the_same_factors(tmp_path: Path, which: Any) -> None:
    changes = {"meta_batch_size": EPISODES, "num_steps": STEPS}
    wanted = (
        image_experiment(tmp_path, which, **changes)
        if which in ("resnet", "vit")
        else lora_experiment(tmp_path, next(one for one in ALGORITHMS if one.kind == which), **changes)
    )
    states = {ranks: initial_state(wanted, CPU) for ranks in (1, 2, 3)}
    before = parameters_sha256(states[1].meta)
    for _ in range(STEPS):
        advance(wanted, states[1], LocalReducer(), 0, 1)
        for ranks in (2, 3):
            advance_by(ranks, wanted, states[ranks])
    found = {parameters_sha256(state.meta) for state in states.values()}
    assert len(found) == 1 and before not in found


def test_what_is_trained_lies_apart_from_the_encoder(
    train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = train(lora_experiment(tmp_path, ALGORITHMS[0]), register=False, run="factors")
    learner = told.learner
    own = {name for name in learner.meta if name.startswith("head.") or ".lora_" in name}
    assert learner.meta.keys() == own and len(own) == 2 + 2 * 2 * 2
    # Checkpoints have these and the optimiser's moments, and nothing frozen.
    (state,) = tmp_path.rglob("step-000000004/state.safetensors")
    trained = sum(tensor.numel() for tensor in learner.meta.values())
    assert sum(tensor.numel() for tensor in load_file(state).values()) < 5 * trained
    assert trained < sum(tensor.numel() for tensor in learner.state.values()) / 2

    texts, labels = zip(*KNOWN, strict=True)
    asked = ["an album of the band", "my card"]
    task = learner.adapt(texts, labels)
    changed = {name for name in own if not torch.equal(task.adapted[name], learner.meta[name])}
    assert {"head.weight", "body.layers.1.value.lora_b"} <= changed <= own
    expected = task.predict_proba(asked)
    learner.save(tmp_path / "learner")
    shutil.rmtree(tmp_path / "encoder")
    monkeypatch.setenv("METARAY_CACHE", str(tmp_path / "another node"))
    again = metaray.load(str(tmp_path / "learner"))
    assert isinstance(again.model, LoRA) and again.model.model == learner.model.held.model
    assert np.array_equal(again.adapt(texts, labels).predict_proba(asked), expected)
    assert load_file(tmp_path / "learner" / "parameters.safetensors").keys() == own
    assert load_file(tmp_path / "learner" / "state.safetensors").keys() == learner.state.keys()
